"""The Airflow plugin: routes below /batch, and a tab "LLM batch" on task instances.

Airflow loads plugins in every process, including workers. FastAPI and Airflow's own API take over a second to import
and are only needed in the API server, so they are imported when the first request arrives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_batch.links.batch import MOUNT, plugin_url

_Message = MutableMapping[str, Any]


async def routes(
    scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
) -> None:
    """Pass a request on to the ASGI app in `plugins.app`."""
    from airflow_provider_batch.plugins.app import app

    await app(scope, receive, send)


class BatchPlugin(AirflowPlugin):
    """Registers the routes and the tab with Airflow."""

    name = "batch"
    fastapi_apps = [{"app": routes, "url_prefix": MOUNT, "name": "LLM batch"}]  # noqa: RUF012 - Airflow's shape
    external_views = [  # noqa: RUF012 - Airflow's shape
        {
            "name": "LLM batch",
            "href": plugin_url("/job/{DAG_ID}/{TASK_ID}/{MAP_INDEX}?run_id={RUN_ID}"),
            "destination": "task_instance",
            "url_route": "batch-job",
        }
    ]
