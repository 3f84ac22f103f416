"""The page is tested inside a real Airflow API app, on the database of the Airflow tests."""

from tests.airflow.conftest import airflow_home

__all__ = ["airflow_home"]
