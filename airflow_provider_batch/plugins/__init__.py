"""The page of a job in the Airflow UI."""
