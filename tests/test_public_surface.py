"""The names that DAGs may import. Changing them affects users and belongs in the changelog."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

import airflow_provider_batch

PACKAGE = Path(airflow_provider_batch.__file__).parent

SURFACE = {
    "airflow_provider_batch.decorators": ["openai_batch_task"],
    "airflow_provider_batch.exceptions": [
        "AbsentTableError",
        "AwayError",
        "BatchError",
        "BrokenDownloadError",
        "BudgetError",
        "CanaryError",
        "CapacityError",
        "CustomIdError",
        "EqualDigestsError",
        "FileStoreError",
        "InputError",
        "JobHeldError",
        "LedgerError",
        "ProviderError",
        "ResultsTableError",
        "RowTooLargeError",
        "SchemaError",
        "StagingError",
        "StoppedError",
        "TemplateError",
        "TooManyFailuresError",
        "UnusableStagingError",
        "WarehouseConnectionError",
        "WarehouseError",
    ],
    "airflow_provider_batch.hooks.batch": ["BatchHook"],
    "airflow_provider_batch.notifications": ["BatchJobNotifier"],
    "airflow_provider_batch.operators.batch": ["BatchResultsOperator", "BatchSubmitOperator"],
    "airflow_provider_batch.operators.evals": [
        "EvalAcceptOperator",
        "EvalCasesOperator",
        "EvalGateOperator",
        "EvalGradeOperator",
        "EvalImportOperator",
        "EvalReportOperator",
        "texts_to_embed",
    ],
    "airflow_provider_batch.presets": ["classify", "embed", "extract", "summarize", "translate"],
    "airflow_provider_batch.sensors.batch": ["BatchSensor"],
    "airflow_provider_batch.task_groups": ["batch_job"],
    "airflow_provider_batch.testing": [
        "Call",
        "Fault",
        "Kind",
        "LocalServer",
        "Options",
        "StartBatchServer",
        "batch_conn_id",
        "batch_server",
        "batch_server_options",
        "connect_batch_server",
        "offline_batches",
        "start_batch_server",
    ],
    "airflow_provider_batch.triggers.batch": ["BatchTrigger"],
}


@cache
def names_imported_within_the_package() -> set[tuple[str, str]]:
    """Return (module, name) for every `from module import name` in the package."""
    return {
        (node.module, alias.name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


@pytest.mark.parametrize("module", SURFACE)
def test_a_public_module_exports_exactly_these_names(module: str) -> None:
    assert importlib.import_module(module).__all__ == SURFACE[module]
    assert all(hasattr(importlib.import_module(module), name) for name in SURFACE[module])


@pytest.mark.parametrize("module", SURFACE)
def test_a_name_that_only_its_own_public_module_uses_starts_with_an_underscore(module: str) -> None:
    tree = ast.parse(Path(importlib.import_module(module).__file__ or "").read_text())
    definitions = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    public_names = [name for name in definitions if not name.startswith("_") and name not in SURFACE[module]]
    assert [name for name in public_names if (module, name) not in names_imported_within_the_package()] == []
