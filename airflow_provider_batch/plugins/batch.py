"""The plugin: routes below /batch, and a tab "LLM batch" on task instances.

Airflow loads plugins in every process, workers included. What only the API server needs, FastAPI and Airflow's own
API, takes over a second to import, so that waits for the first request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_batch.links.batch import MOUNT, mounted

_Message = MutableMapping[str, Any]


async def routes(
    scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
) -> None:
    """The ASGI app of `plugins.routes`."""
    from airflow_provider_batch.plugins.routes import app

    await app(scope, receive, send)


class BatchPlugin(AirflowPlugin):
    """What Airflow loads."""

    name = "batch"
    fastapi_apps = [{"app": routes, "url_prefix": MOUNT, "name": "LLM batch"}]  # noqa: RUF012 - Airflow's shape
    external_views = [  # noqa: RUF012 - Airflow's shape
        {
            "name": "LLM batch",
            "href": mounted("/job/{DAG_ID}/{TASK_ID}/{MAP_INDEX}?run_id={RUN_ID}"),
            "destination": "task_instance",
            "url_route": "batch-job",
        }
    ]
