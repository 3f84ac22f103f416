"""`airflow-batch jobs`: what a person sees of jobs, and does to them, outside of any task."""
