"""An Airflow provider that sends warehouse rows through the OpenAI Batch API and writes the answers back by key."""

__version__ = "0.1.0"
