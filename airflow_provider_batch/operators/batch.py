"""The operators, under the path that DAGs import them from."""

from airflow_provider_batch.operators.results import BatchResultsOperator
from airflow_provider_batch.operators.submit import BatchSubmitOperator

__all__ = ["BatchResultsOperator", "BatchSubmitOperator"]
