"""The pure core: what a job is and what happens next to it. No Airflow, no openai, no network."""
