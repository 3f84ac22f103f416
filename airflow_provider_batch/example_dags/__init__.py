"""Example DAGs, to be copied and changed. Airflow shows them with `[core] load_examples`."""
