"""The Airflow plugin: routes below /batch, the page "LLM batch" in the left bar, and a tab of that name on each run.

Airflow loads plugins in every process, including workers. FastAPI and Airflow's own API take over a second to import
and are only needed in the API server, so they are imported when the first request arrives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowPlugin
from packaging.version import Version

from airflow_provider_batch.links.batch import MOUNT, PAGE, plugin_url

_Message = MutableMapping[str, Any]


async def routes(
    scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
) -> None:
    """Pass a request on to the ASGI app in `plugins.app`, with Airflow's own app, which clears tasks."""
    from airflow_provider_batch.plugins.app import app

    scope["airflow"] = scope.get("app")
    await app(scope, receive, send)


def page(destination: str, route: str) -> dict[str, Any]:
    """Return the registration of the page, a React app of plain modules that Airflow loads without a build step.

    :param destination: where Airflow shows it: "nav", or a tab of "dag_run" and so on.
    :param route: the last part of its path. It must be unique among all plugins.
    """
    return {
        "name": "LLM batch",
        "bundle_url": plugin_url("/ui/main.js"),
        "icon": plugin_url("/ui/icon.svg"),
        "destination": destination,
        "url_route": route,
    }


#: Airflow from 3.4 on can limit a tab to some operators. Earlier, it would be on every task of every DAG.
_LIMITS_TABS = Version(airflow_version).release >= (3, 4)
_OPERATORS = ["BatchSubmitOperator", "BatchSensor", "BatchResultsOperator"]


class BatchPlugin(AirflowPlugin):
    """Registers the routes and the page with Airflow."""

    name = "batch"
    fastapi_apps = [{"app": routes, "url_prefix": MOUNT, "name": "LLM batch"}]  # noqa: RUF012 - Airflow's shape
    react_apps = [  # noqa: RUF012 - Airflow's shape
        {**page("nav", PAGE.rpartition("/")[2]), "nav_top_level": True},
        page("dag_run", "llm-batch-run"),
        *([{**page("task_instance", "llm-batch-task"), "applies_to": {"operator_name": _OPERATORS}}] * _LIMITS_TABS),
    ]
