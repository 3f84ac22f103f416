"""The command `airflow-batch jobs`: shows, cancels, resubmits and cleans up the jobs in staging."""
