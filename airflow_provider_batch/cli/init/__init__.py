"""`airflow-batch init`: writes a first DAG from the answers to a few questions."""
