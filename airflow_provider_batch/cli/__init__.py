"""The command-line tool `airflow-batch`."""
