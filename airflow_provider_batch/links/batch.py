"""Extra links from a task to the page of its job, to the provider's batches, and to the report that it wrote.

Airflow's UI reads the value of an extra link from XCom, under the link's `xcom_key`. Airflow only writes it when the
task ends, so `persist` writes it earlier: while the task is running, and before it is deferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

from airflow_provider_batch.core.provider.catalogue import OPENAI_BATCHES, is_openai

#: URL prefix of the plugin's routes, below the base URL of the API server
MOUNT = "/batch"
#: path of the page "LLM batch" in Airflow's UI, below the base URL of the API server; `plugins.batch` registers it
PAGE = "/plugin/llm-batch"
#: XCom key of the address of the job's ledger, from which the page of the job is read
LEDGER_KEY = "batch_ledger"
#: XCom key of the file name of the report that a task wrote into its folder in staging
REPORT_KEY = "batch_report"


def plugin_url(path: str) -> str:
    """Return the path at which a browser reaches a route of the plugin, with the prefix of `[api] base_url`."""
    return _below_base_url(f"{MOUNT}{path}")


def job_page(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the URL of the page that shows the job of a task instance."""
    query = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
    if map_index >= 0:
        query["map_index"] = str(map_index)
    return _below_base_url(f"{PAGE}?{urlencode(query, quote_via=quote, safe='')}")


def report_page(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the URL of the report that a task instance wrote."""
    # A run_id may contain a slash, and a slash that is encoded in the path is decoded before routing. So the run_id is
    # a query parameter.
    task = "/".join(quote(str(part), safe="") for part in (dag_id, task_id, map_index))
    return plugin_url(f"/report/{task}?run_id={quote(run_id, safe='')}")


def answers_page(dag_id: str, run_id: str) -> str:
    """Return the URL of the page with all answers of a graded run.

    It is absolute if `[api] base_url` is, so it works from a report that was mailed.
    """
    query = {"view": "evals", "tab": "cases", "dag_id": dag_id, "run_id": run_id}
    path = _below_base_url(f"{PAGE}?{urlencode(query, quote_via=quote, safe='')}")
    return urljoin(str(conf.get("api", "base_url", fallback="/")), path)


def _below_base_url(path: str) -> str:
    prefix = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    return f"{prefix}{path}"


class BatchJobLink(BaseOperatorLink):
    """The link "LLM batch" on a task instance."""

    name = "LLM batch"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL of the page. Airflow calls this in the worker, at the end of the task."""
        return job_page(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)

    @classmethod
    def persist(cls, context: Mapping[str, Any], ledger: str) -> None:
        """Make the link available while the task is still running.

        :param ledger: absolute address of the job's folder.
        """
        ti = context["ti"]
        link = cls()
        ti.xcom_push(key=LEDGER_KEY, value=ledger)
        ti.xcom_push(key=link.xcom_key, value=link.get_link(ti.task, ti_key=ti))


class ProviderBatchesLink(BaseOperatorLink):
    """The link "Batches at OpenAI" on a task instance whose batches are at OpenAI, which has a page for them."""

    name = "Batches at OpenAI"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL that `persist` stored. With an empty text, Airflow shows no link."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""

    @classmethod
    def persist(cls, context: Mapping[str, Any], host: str) -> None:
        """Make the link available if the task's connection leads to OpenAI.

        :param host: the host that the client of the connection calls.
        """
        if is_openai(host):
            context["ti"].xcom_push(key=cls().xcom_key, value=OPENAI_BATCHES)


class EvalReportLink(BaseOperatorLink):
    """The link "Eval report" on a task instance that wrote a report."""

    name = "Eval report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL of the page. Airflow calls this in the worker, at the end of the task."""
        return report_page(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
