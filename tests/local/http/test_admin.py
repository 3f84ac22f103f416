"""The admin routes, the option `--faults`, and how tests use both."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from airflow_provider_batch.local import command
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve
from tests.local.driving import chats, run
from tests.local.schemas import assert_fits

ROUTES = [
    ("GET", "/admin/faults"),
    ("PUT", "/admin/faults"),
    ("DELETE", "/admin/faults"),
    ("GET", "/admin/clock"),
    ("POST", "/admin/clock"),
    ("GET", "/admin/calls"),
]


@pytest.fixture(scope="module")
def admin_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("admin"), admin=True, api_key="secret") as server:
        yield server


def http_client(server: LocalServer, key: str = "secret") -> httpx2.Client:
    return httpx2.Client(
        base_url=server.base_url.removesuffix("/v1"), headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )


@pytest.fixture
def http(admin_server: LocalServer) -> Iterator[httpx2.Client]:
    with http_client(admin_server) as client:
        client.delete("/admin/faults")
        yield client
        client.delete("/admin/faults")


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """Return the error object of a response."""
    assert_fits(response.json(), "ErrorResponse")
    error = response.json()["error"]
    assert isinstance(error, dict)
    return error


# availability


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_the_routes_do_not_exist_without_the_option(server: LocalServer, method: str, path: str) -> None:
    with http_client(server, "local") as http:
        response = http.request(method, path)

    assert response.status_code == 404
    assert error_of(response)["message"] == f"Invalid URL ({method} {path})"


def test_admin_methods_fail_on_a_server_without_admin_routes(server: LocalServer) -> None:
    for call in (server.set_faults, server.calls, lambda: server.advance(1)):
        with pytest.raises(RuntimeError, match="admin=True"):
            call()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_admin_routes_require_the_api_key(admin_server: LocalServer, method: str, path: str) -> None:
    with http_client(admin_server, "wrong") as http:
        assert http.request(method, path, content="[]").status_code == 401


def test_admin_routes_are_not_under_v1(http: httpx2.Client) -> None:
    assert http.get("/v1/admin/faults").status_code == 404


# faults


def test_faults_can_be_set_counted_replaced_and_removed(http: httpx2.Client) -> None:
    drop = {"kind": "status", "calls": ["list"], "status": 503, "times": 2}
    refusal = {"kind": "refusal", "rate": 0.25}
    assert http.get("/admin/faults").json() == []

    assert http.put("/admin/faults", json=[drop, refusal]).json() == [
        {"fault": drop, "hits": 0},
        {"fault": refusal, "hits": 0},
    ]
    assert [http.get("/v1/batches").status_code for _ in range(3)] == [503, 503, 200]
    assert [entry["hits"] for entry in http.get("/admin/faults").json()] == [2, 0]
    assert http.put("/admin/faults", json=[drop]).json() == [{"fault": drop, "hits": 0}]
    assert http.delete("/admin/faults").json() == []
    assert http.get("/v1/batches").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('[{"kind": "drop", "rate": 2}]', "[0].rate"),
        ('[{"kind": "drop", "rat": 1}]', "[0].rat"),
        ('[{"kind": "drop"}, {"calls": []}]', "[1].kind"),
        ('{"kind": "drop"}', None),
        ("", None),
    ],
)
def test_invalid_faults_are_rejected_with_the_name_of_the_field_and_change_nothing(
    http: httpx2.Client, body: str, param: str | None
) -> None:
    previous = http.put("/admin/faults", json=[{"kind": "refusal"}]).json()

    response = http.put("/admin/faults", content=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)
    assert http.get("/admin/faults").json() == previous


def test_admin_and_model_routes_are_never_hit(http: httpx2.Client) -> None:
    http.put("/admin/faults", json=[{"kind": "drop"}])

    for path in ("/admin/faults", "/admin/clock", "/admin/calls", "/v1/models"):
        assert http.get(path).status_code == 200


def test_set_faults_sets_and_removes_faults(admin_server: LocalServer) -> None:
    with OpenAI(base_url=admin_server.base_url, api_key="secret", max_retries=0) as client:
        admin_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.LIST})))
        with pytest.raises(openai.InternalServerError):
            client.batches.list()
        admin_server.set_faults()
        client.batches.list()


# clock


def test_the_clock_can_be_read_and_jumps_ahead(http: httpx2.Client) -> None:
    previous = http.get("/admin/clock").json()
    assert previous["speed"] == 1

    current = http.post("/admin/clock", json={"advance": 5_000}).json()
    assert current["now"] - previous["now"] >= 5_000
    assert http.get("/admin/clock").json()["now"] >= current["now"]
    assert http.post("/admin/clock", json={"advance": 0}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"advance": -1}',
        '{"advance": "1"}',
        '{"advance": null}',
        '{"advance": 1e300}',
        '{"advance": 1, "speed": 2}',
        "{}",
        "5",
        "",
    ],
)
def test_an_invalid_jump_is_rejected(http: httpx2.Client, body: str) -> None:
    previous = http.get("/admin/clock").json()["now"]

    response = http.post("/admin/clock", content=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == "advance"
    assert http.get("/admin/clock").json()["now"] - previous < 3_600


def test_an_invalid_jump_raises_the_message_of_the_server(admin_server: LocalServer) -> None:
    with pytest.raises(ValueError, match=r"refused POST clock.*>= 0"):
        admin_server.advance(-1)
    with pytest.raises(ValueError, match="refused POST clock"):
        admin_server.advance(math.nan)


# calls


def test_every_call_is_counted_including_failed_and_refused_ones(
    admin_server: LocalServer, http: httpx2.Client
) -> None:
    previous = admin_server.calls()
    assert set(previous) == set(Call)
    http.get("/v1/batches")
    http.get("/v1/batches/batch_unknown")
    http.put("/admin/faults", json=[{"kind": "status", "calls": ["create"]}])
    http.post("/v1/batches", json={})
    http.delete("/admin/faults")
    http.post("/v1/batches", json={})
    http.get("/v1/models")

    current = admin_server.calls()
    assert {call: current[call] - previous[call] for call in current if current[call] != previous[call]} == {
        "list": 1,
        "retrieve": 1,
        "create": 2,
    }


# the option --faults


def write_plan(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "faults.json"
    path.write_text(content)
    return path


def server_log(server: LocalServer) -> str:
    return (server.state / "server.log").read_text()


def test_faults_from_a_file_are_active_from_the_start_and_announced(serve: Serve, tmp_path: Path) -> None:
    path = write_plan(tmp_path, '[{"kind": "status", "calls": ["list"], "status": 502, "times": 1}]')
    server, client = serve(faults=path)

    assert "Injected faults are on" in server_log(server)
    assert "Admin" not in server_log(server)
    with pytest.raises(openai.InternalServerError):
        client.batches.list()
    client.batches.list()
    with pytest.raises(openai.NotFoundError):
        client.get(server.base_url.replace("/v1", "/admin/faults"), cast_to=object)


def test_admin_faults_replace_those_of_the_file_until_the_server_restarts(serve: Serve, tmp_path: Path) -> None:
    server, client = serve(faults=write_plan(tmp_path, '[{"kind": "status", "calls": ["list"]}]'), admin=True)
    assert "Injected faults are on" in server_log(server)
    assert "Admin routes are on:" in server_log(server)
    assert f" at {server.base_url.removesuffix('/v1')}/admin." in server_log(server)
    server.set_faults()
    client.batches.list()

    server.stop()
    server.start()
    with pytest.raises(openai.InternalServerError):
        client.batches.list()


def test_by_default_there_are_no_faults_and_no_announcement(server: LocalServer, client: OpenAI) -> None:
    assert run(client, chats(20)).status == "completed"
    assert "faults" not in server_log(server)
    assert "Admin" not in server_log(server)


@pytest.mark.parametrize(
    ("content", "expected_message"),
    [
        ('[{"kind": "explode"}]', "Invalid enum value 'explode' - at `$[0].kind`"),
        ("[", "truncated"),
        (None, "No such file"),
    ],
)
def test_an_invalid_fault_file_is_reported_in_one_line_before_the_server_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, expected_message: str
) -> None:
    path = tmp_path / "faults.json"
    if content is not None:
        path.write_text(content)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)

    # The server cannot listen on this host. An attempt would add the host to the output.
    arguments = ["--faults", str(path), "--state", str(tmp_path / "state"), "--host", "192.0.2.1", "--api-key", "x"]
    assert command.run(parser.parse_args(arguments)) == 2
    error_output = capsys.readouterr().err
    assert error_output.count("\n") == 1
    assert str(path) in error_output
    assert expected_message in error_output
    assert not (tmp_path / "state").exists()
