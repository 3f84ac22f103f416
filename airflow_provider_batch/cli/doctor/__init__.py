"""`airflow-batch doctor`: checks what a job needs, and says how to fix what is wrong."""
