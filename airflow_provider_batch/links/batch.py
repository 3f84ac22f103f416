"""The links from a task to the page of its job, and to the report that it wrote.

Airflow's UI reads the value of an extra link from XCom alone, under the link's `xcom_key`. Airflow writes it there
when a task ends; `persist` writes it while the task still runs, or before it is deferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

#: where the plugin's routes lie below the address of the API server
MOUNT = "/batch"
#: XCom key of the address of the job's ledger, which the page of any task of the job is drawn from
LEDGER_KEY = "batch_ledger"
#: XCom key of the name of the report that a task wrote, in the folder of staging that is the task's own
REPORT_KEY = "batch_report"


def mounted(path: str) -> str:
    """A path of the plugin as seen from a browser, with the prefix that `[api] base_url` may have."""
    prefix = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    return f"{prefix}{MOUNT}{path}"


def job_page(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """The address of the page for the job of a task instance."""
    return _page("job", dag_id, run_id, task_id, map_index)


def report_page(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """The address of the report that a task instance wrote."""
    return _page("report", dag_id, run_id, task_id, map_index)


def _page(kind: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    # the run_id, which may hold a slash, is a parameter; an encoded slash in a path is decoded before routing
    task = "/".join(quote(str(part), safe="") for part in (dag_id, task_id, map_index))
    return mounted(f"/{kind}/{task}?run_id={quote(run_id, safe='')}")


class BatchJobLink(BaseOperatorLink):
    """The button "LLM batch" on a task instance."""

    name = "LLM batch"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the page; only asked for on the worker, which knows the task instance."""
        return job_page(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)

    @classmethod
    def persist(cls, context: Mapping[str, Any], ledger: str) -> None:
        """Show the link from now on. `ledger` is the absolute address of the job's folder."""
        ti = context["ti"]
        link = cls()
        ti.xcom_push(key=LEDGER_KEY, value=ledger)
        ti.xcom_push(key=link.xcom_key, value=link.get_link(ti.task, ti_key=ti))


class EvalReportLink(BaseOperatorLink):
    """The button "Eval report" on a task instance that wrote one."""

    name = "Eval report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the page; only asked for on the worker, which knows the task instance."""
        return report_page(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
