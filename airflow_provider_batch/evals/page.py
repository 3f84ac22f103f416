"""A report as a file: its name and place in staging, and how a server has to hand it out."""

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
    """The folder for the reports of a task instance, under `[openai_batch] staging`."""
    return job_folder(staging_root(), JobKey(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index))


def report_name(page: bytes) -> str:
    """The name of a report: another one for another content, so that none is ever written over."""
    return f"report-{hashlib.sha256(page).hexdigest()[:16]}.html"


def is_report(name: str) -> bool:
    """Whether this is the name of a report."""
    return _NAME.fullmatch(name) is not None


def headers(page: bytes) -> dict[str, str]:
    """What to send with a page, whoever may have written that: it gets to load and run nothing."""
    style = _STYLE.search(page)
    return {
        "Content-Security-Policy": f"{policy(style[1] if style else b'')}; frame-ancestors 'self'; sandbox",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
