"""The environment that the demo's folder defines for Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_batch.demo.home import DemoError, Home, Provider, dags_folder

LOCAL = Provider("http://127.0.0.1:1/v1", "local", local=True)
REAL = Provider(None, "sk-secret")


def test_the_settings_of_another_airflow_are_dropped(tmp_path: Path) -> None:
    base = {
        "AIRFLOW_HOME": "/opt/airflow",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://prod",
        "AIRFLOW_CONN_WAREHOUSE": "postgres://prod",
        "AIRFLOW_CONN_OTHER": "x",
        "LANG": "C.UTF-8",
    }
    environment = Home(tmp_path).environment(LOCAL, base)
    assert "prod" not in json.dumps(environment)
    assert "AIRFLOW_CONN_OTHER" not in environment
    assert environment["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert environment["LANG"] == "C.UTF-8"


def test_loopback_bypasses_any_proxy(tmp_path: Path) -> None:
    environment = Home(tmp_path).environment(LOCAL, {"HTTPS_PROXY": "http://proxy", "NO_PROXY": "intranet"})
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_only_the_local_server_is_polled_more_often_than_by_default(tmp_path: Path) -> None:
    assert "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL" in Home(tmp_path).environment(LOCAL, {})
    assert "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL" not in Home(tmp_path).environment(REAL, {})


def test_without_a_base_url_the_connection_has_no_host() -> None:
    assert json.loads(REAL.connection) == {"conn_type": "openai", "password": "sk-secret"}
    assert json.loads(LOCAL.connection)["host"] == "http://127.0.0.1:1/v1"


def test_an_error_names_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match=r"Cannot write to .*file/demo.*--home"):
        Home(tmp_path / "file" / "demo").prepare()


def test_the_dags_folder_contains_the_dags() -> None:
    assert (dags_folder() / "label_tickets.py").is_file()
