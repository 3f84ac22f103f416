"""Fixtures for the tests of the plugin, which run in a real Airflow API app."""

from tests.airflow.conftest import airflow_home

__all__ = ["airflow_home"]
