"""The operators of evals, and `texts_to_embed`. DAGs import them from here."""

from airflow_provider_batch.operators.evals.embeddings import texts_to_embed
from airflow_provider_batch.operators.evals.gate import EvalGateOperator
from airflow_provider_batch.operators.evals.grade import EvalAcceptOperator, EvalCasesOperator, EvalGradeOperator
from airflow_provider_batch.operators.evals.import_cases import EvalImportOperator
from airflow_provider_batch.operators.evals.report import EvalReportOperator

__all__ = [
    "EvalAcceptOperator",
    "EvalCasesOperator",
    "EvalGateOperator",
    "EvalGradeOperator",
    "EvalImportOperator",
    "EvalReportOperator",
    "texts_to_embed",
]
