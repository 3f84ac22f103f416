"""The Airflow plugin that shows the page of a job in the UI."""
