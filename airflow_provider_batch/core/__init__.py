"""What the provider does, as pure functions: no Airflow, no openai, no network, no disk but the folder it is handed."""
