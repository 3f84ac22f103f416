"""The operators of evals, under the path that DAGs import them from."""

from airflow_provider_batch.operators.evals_gate import EvalGateOperator
from airflow_provider_batch.operators.evals_grade import EvalAcceptOperator, EvalCasesOperator, EvalGradeOperator
from airflow_provider_batch.operators.evals_report import EvalReportOperator

__all__ = ["EvalAcceptOperator", "EvalCasesOperator", "EvalGateOperator", "EvalGradeOperator", "EvalReportOperator"]
