"""`airflow-batch jobs`: list, show, cancel, re-run and clean the jobs in staging."""
