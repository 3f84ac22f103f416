"""The logic of the provider without Airflow, openai or network; it uses no disk except the folder it is handed."""
