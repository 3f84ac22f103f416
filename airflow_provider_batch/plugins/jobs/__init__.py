"""The list of all jobs, from Airflow's metadata database, and the progress of those that run."""
