"""What Airflow gets from the demo's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_batch.demo.home import DemoError, Home, Provider, dags_folder

LOCAL = Provider("http://127.0.0.1:1/v1", "local", local=True)
REAL = Provider(None, "sk-secret")


def test_nothing_that_speaks_to_another_airflow_is_taken_over(tmp_path: Path) -> None:
    given = {
        "AIRFLOW_HOME": "/opt/airflow",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://prod",
        "AIRFLOW_CONN_WAREHOUSE": "postgres://prod",
        "AIRFLOW_CONN_OTHER": "x",
        "LANG": "C.UTF-8",
    }
    environment = Home(tmp_path).environment(LOCAL, given)
    assert "prod" not in json.dumps(environment)
    assert "AIRFLOW_CONN_OTHER" not in environment
    assert environment["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert environment["LANG"] == "C.UTF-8"


def test_loopback_is_reached_past_any_proxy(tmp_path: Path) -> None:
    environment = Home(tmp_path).environment(LOCAL, {"HTTPS_PROXY": "http://proxy", "NO_PROXY": "intranet"})
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_the_real_api_is_looked_at_as_seldom_as_airflow_is_configured_to(tmp_path: Path) -> None:
    assert "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL" in Home(tmp_path).environment(LOCAL, {})
    assert "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL" not in Home(tmp_path).environment(REAL, {})


def test_without_a_base_url_the_connection_leaves_the_address_to_the_sdk() -> None:
    assert json.loads(REAL.connection) == {"conn_type": "openai", "password": "sk-secret"}
    assert json.loads(LOCAL.connection)["host"] == "http://127.0.0.1:1/v1"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match=r"Cannot write to .*file/demo.*--home"):
        Home(tmp_path / "file" / "demo").prepare()


def test_the_dags_are_found() -> None:
    assert (dags_folder() / "label_tickets.py").is_file()
