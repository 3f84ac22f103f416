"""Imports of files on a disk, and the grades that the imported cases give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.evals.cases import read_cases
from airflow_provider_batch.evals.grading import Answer
from airflow_provider_batch.evals.import_files import StoredFiles
from airflow_provider_batch.evals.imports.drafts import Imported, ImportedCase
from airflow_provider_batch.evals.imports.formats import read_evals
from airflow_provider_batch.evals.imports.sources import ImportOptions
from airflow_provider_batch.evals.tables import CASE_COLUMNS

SAMPLES = Path(__file__).parent / "samples"

Write = Callable[[str, str | bytes], Path]


def import_file(format_: str, path: Path, **options: Any) -> Imported:
    return read_evals(format_, StoredFiles(str(path)), ImportOptions(**options))


def is_right(case: ImportedCase, answer: str) -> bool:
    """Grade an answer to an imported case as a run of the DAG would."""
    row = tuple(getattr(case, name) for name in CASE_COLUMNS)
    (parsed,) = read_cases(CASE_COLUMNS, [row])
    landed = Answer("model", case.case_id, 1, "succeeded", answer, None, None, None, None)
    return parsed.grader.grade(parsed, landed).passed


def reasons(imported: Imported) -> list[str]:
    return [f"{item.place}: {item.reason}" for item in imported.skipped]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file below a temporary folder and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file
