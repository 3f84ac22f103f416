"""Public import path of `BatchSubmitOperator` and `BatchResultsOperator`."""

from airflow_provider_batch.operators.results import BatchResultsOperator
from airflow_provider_batch.operators.submit import BatchSubmitOperator

__all__ = ["BatchResultsOperator", "BatchSubmitOperator"]
