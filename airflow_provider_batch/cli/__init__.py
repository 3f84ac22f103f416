"""The command line `airflow-batch`."""
