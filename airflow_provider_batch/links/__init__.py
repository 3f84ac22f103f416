"""Extra links of tasks in the Airflow UI."""
