"""Which job a request is about, and whether its user may see or change it.

Airflow protects no route of a plugin. So a route that is about one job takes a `ReadableJob`, or an `EditableJob` if it
changes something, and a route that lists jobs takes the `ReadableDags`. All of them require a login.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.providers.common.compat.sdk import conf
from fastapi import Depends, HTTPException, Request

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.plugins import budget

#: value of the header X-Requested-With of every request that changes something
REQUESTED_WITH = "llm-batch"

#: maximum length of an id in Airflow, and the highest map index of its database
_MAX_ID = 250
_MAX_MAP_INDEX = 2**31 - 1


def parse_key(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> JobKey:
    """Return the key of the job that a request names.

    :raises HTTPException: 400 if Airflow has no task instance with such a name.
    """
    for name, value in (("dag_id", dag_id), ("run_id", run_id), ("task_id", task_id)):
        if not 0 < len(value) <= _MAX_ID or "\0" in value:
            raise HTTPException(
                400, f"{name}: Give the id of the job's DAG, run or task, of 1 to {_MAX_ID} characters."
            )
    if not re.fullmatch(r"-1|[0-9]{1,10}", map_index) or int(map_index) > _MAX_MAP_INDEX:
        raise HTTPException(400, "map_index: Give the map index of the submit task, or -1 if it is not mapped.")
    return JobKey(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=int(map_index))


def parse_joined_key(text: str) -> JobKey:
    """Return the key of a job that is written as DAG|RUN|TASK|MAP, each of them URL-encoded.

    :raises HTTPException: 400 if it is written differently.
    """
    parts = [unquote(part) for part in text.split("|")]
    if len(parts) != 4:
        raise HTTPException(400, "job: Give DAG|RUN|TASK|MAP, each of them URL-encoded.")
    return parse_key(*parts)


def _key(request: Request) -> JobKey:
    values = {**request.query_params, **request.path_params}
    # If the task is not mapped, Airflow's UI leaves {MAP_INDEX} in the address of a tab as it is.
    map_index = values.get("map_index", "-1").replace("{MAP_INDEX}", "-1")
    return parse_key(values.get("dag_id", ""), values.get("run_id", ""), values.get("task_id", ""), map_index)


_Key = Annotated[JobKey, Depends(_key)]


def _readable_job(request: Request, user: GetUserDep, key: _Key) -> JobKey:
    _require("GET", key.dag_id, request, user)
    return key


def _editable_job(request: Request, user: GetUserDep, key: _Key) -> JobKey:
    _check_same_site(request)
    _require("PUT", key.dag_id, request, user)
    return key


def _require(method: Any, dag_id: str, request: Request, user: Any) -> None:
    check: Callable[..., None] = requires_access_dag(method, DagAccessEntity.TASK_INSTANCE, dag_id)
    check(request, user)


def _may_edit(request: Request, user: GetUserDep, key: _Key) -> bool:
    try:
        _require("PUT", key.dag_id, request, user)
    except HTTPException:
        return False
    return True


def _check_same_site(request: Request) -> None:
    """Check that the page sent the request, and not another site in the browser of the user.

    A browser sends Airflow's cookie with requests of other sites, but not this header: it would first ask Airflow for
    permission. `Sec-Fetch-Site` is missing in old browsers and without HTTPS, and `Origin` outside of browsers.

    :raises HTTPException: 403 if another site may have sent it.
    """
    headers = request.headers
    origin, fetch_site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if fetch_site is not None:
        is_same_site = fetch_site == "same-origin"
    else:
        hosts = {headers.get("Host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc} - {"", None}
        is_same_site = origin is None or urlsplit(origin).netloc in hosts
    if not is_same_site or headers.get("X-Requested-With") != REQUESTED_WITH:
        raise HTTPException(403, "Only the page of the job may do this. Nothing was changed.")


async def _readable_dags(user: GetUserDep) -> frozenset[str]:
    return await budget.DATABASE.run(lambda: _find_readable_dags(user))


def _find_readable_dags(user: Any) -> frozenset[str]:
    manager = get_auth_manager()
    # as for Airflow's own list of task instances
    if not manager.is_authorized_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE, user=user):
        raise HTTPException(403, "You may not see the task instances of this Airflow.")
    return frozenset(manager.get_authorized_dag_ids(user=user))


#: the job that the request names, which the user may read
ReadableJob = Annotated[JobKey, Depends(_readable_job)]
#: the same for a request that changes something: the user may edit the task instances of the DAG
EditableJob = Annotated[JobKey, Depends(_editable_job)]
#: whether the user may edit the task instances of the job's DAG; for a button, together with a `ReadableJob`
MayEdit = Annotated[bool, Depends(_may_edit)]
#: ids of the DAGs that the user may read
ReadableDags = Annotated[frozenset[str], Depends(_readable_dags)]
