"""Resolve an Airflow connection id to the SQL hook that reads and writes through it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

from airflow_provider_batch.exceptions import WarehouseConnectionError

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook


def sql_hook(conn_id: str) -> DbApiHook:
    """Return the hook of connection `conn_id`, resolved as Airflow does inside a task.

    This does not open a connection. An unreachable database shows up at the first query.

    Raises WarehouseConnectionError if the connection does not exist, if no installed provider knows its type, or
    if its hook is not a `DbApiHook`.
    """
    # takes long to import, and parsing a DAG file does not need it
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    try:
        connection: Any = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        if variable in os.environ:
            raise WarehouseConnectionError(
                f"The environment variable {variable} is set, but its value cannot be read as a connection. Nothing "
                "was uploaded. Correct the variable: expected is a URI such as postgres://USER:PASSWORD@HOST/DATABASE, "
                'or JSON such as {"conn_type": "postgres", "host": "HOST"}.'
            ) from None
        raise WarehouseConnectionError(
            f"There is no Airflow connection {conn_id!r}. Create it under Admin > Connections, with "
            f"`airflow connections add {conn_id} --conn-type postgres --conn-host ...`, or as the "
            f"environment variable {variable}. Nothing was uploaded."
        ) from None
    conn_type = connection.conn_type
    try:
        hook = connection.get_hook()
    except (AirflowException, ImportError) as error:
        raise WarehouseConnectionError(
            f"Airflow connection {conn_id!r} has the type {conn_type!r}, and no installed provider has a hook "
            f"for it ({error}). Install the provider for this database, or correct the type. Nothing was uploaded."
        ) from error
    if not isinstance(hook, DbApiHook):
        raise WarehouseConnectionError(
            f"Airflow connection {conn_id!r} has the type {conn_type!r}, which is not a SQL database: its hook "
            f"{type(hook).__name__} is not a DbApiHook. Use a connection to a database such as postgres or "
            f"sqlite. Nothing was uploaded."
        )
    return hook
