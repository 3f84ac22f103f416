"""The file of a report: its folder and name in staging, and the HTTP headers to serve it with."""

from __future__ import annotations

import hashlib
import re

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.evals.report import policy
from airflow_provider_batch.staging.layout import job_folder, staging_root

_NAME = re.compile(r"report-[0-9a-f]{16}\.html")
_STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)


def report_folder(dag_id: str, run_id: str, task_id: str, map_index: int) -> Folder:
    """Return the folder for the reports of a task instance, under `[openai_batch] staging`."""
    return job_folder(staging_root(), JobKey(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index))


def report_name(page: bytes, matrix: bytes = b"") -> str:
    """Return the file name of a report. It depends on the content, so no report overwrites a different one.

    :param matrix: content of the file with all answers, which is written next to the report.
    """
    return f"report-{hashlib.sha256(page + matrix).hexdigest()[:16]}.html"


def matrix_name(report: str) -> str:
    """Return the name of the file with all answers that belongs to a report."""
    return f"{report.removesuffix('.html')}.json.z"


def is_report(name: str) -> bool:
    """Return whether this is the file name of a report."""
    return _NAME.fullmatch(name) is not None


def headers(page: bytes) -> dict[str, str]:
    """Return the HTTP headers for a page.

    They prevent the page from loading or running anything, even if somebody replaced the file in staging.
    """
    style = _STYLE.search(page)
    return {
        "Content-Security-Policy": f"{policy(style[1] if style else b'')}; frame-ancestors 'self'; sandbox",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
