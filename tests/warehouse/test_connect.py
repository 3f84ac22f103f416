"""A connection id resolves to a SQL hook, or to an error that says how to create the connection."""

from __future__ import annotations

import json

import pytest
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.providers.sqlite.hooks.sqlite import SqliteHook

from airflow_provider_batch.exceptions import WarehouseConnectionError, WarehouseError
from airflow_provider_batch.warehouse.connect import sql_hook


def test_a_connection_resolves_to_the_hook_of_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL", json.dumps({"conn_type": "sqlite", "host": "/tmp/x.db"}))
    monkeypatch.setenv("AIRFLOW_CONN_BIG", json.dumps({"conn_type": "postgres", "host": "db.example"}))
    assert isinstance(sql_hook("local"), SqliteHook)
    assert isinstance(sql_hook("big"), PostgresHook)
    assert sql_hook("big").get_conn_id() == "big"


def test_a_missing_connection_is_reported_with_the_ways_to_create_it() -> None:
    with pytest.raises(WarehouseConnectionError) as exc_info:
        sql_hook("no_such_warehouse")
    text = str(exc_info.value)
    assert "'no_such_warehouse'" in text
    assert "airflow connections add no_such_warehouse" in text
    assert "AIRFLOW_CONN_NO_SUCH_WAREHOUSE" in text
    assert not exc_info.value.retry


def test_a_variable_that_is_no_connection_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LABELS", '{"conn_type": "postgres", ')
    with pytest.raises(WarehouseConnectionError, match=r"AIRFLOW_CONN_LABELS is set, but its value cannot be read"):
        sql_hook("labels")


def test_a_connection_that_is_not_a_sql_database_is_reported_with_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MODEL", json.dumps({"conn_type": "openai", "password": "sk-secret"}))
    with pytest.raises(WarehouseConnectionError, match=r"'model' has the type 'openai'.*OpenAIHook") as exc_info:
        sql_hook("model")
    assert "sk-secret" not in str(exc_info.value)


def test_a_connection_type_without_a_provider_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps({"conn_type": "no_such_type", "host": "x"}))
    with pytest.raises(WarehouseConnectionError, match="'odd' has the type 'no_such_type'"):
        sql_hook("odd")


def test_a_connection_error_is_a_warehouse_error() -> None:
    assert issubclass(WarehouseConnectionError, WarehouseError)
