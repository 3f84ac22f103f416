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
def administered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("administered"), admin=True, api_key="secret") as running:
        yield running


def http_of(server: LocalServer, key: str = "secret") -> httpx2.Client:
    return httpx2.Client(
        base_url=server.base_url.removesuffix("/v1"), headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )


@pytest.fixture
def http(administered: LocalServer) -> Iterator[httpx2.Client]:
    with http_of(administered) as opened:
        opened.delete("/admin/faults")
        yield opened
        opened.delete("/admin/faults")


def refusal(answer: httpx2.Response) -> dict[str, Any]:
    """The error of a refused call."""
    assert_fits(answer.json(), "ErrorResponse")
    error = answer.json()["error"]
    assert isinstance(error, dict)
    return error


# only when asked for


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_the_option_there_are_no_such_routes(server: LocalServer, method: str, path: str) -> None:
    with http_of(server, "local") as http:
        answer = http.request(method, path)

    assert answer.status_code == 404
    assert refusal(answer)["message"] == f"Invalid URL ({method} {path})"


def test_a_test_that_asks_a_server_without_them_is_told_so(server: LocalServer) -> None:
    for ask in (server.set_faults, server.calls, lambda: server.advance(1)):
        with pytest.raises(RuntimeError, match="admin=True"):
            ask()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_they_ask_for_the_key_like_all_others(administered: LocalServer, method: str, path: str) -> None:
    with http_of(administered, "wrong") as http:
        assert http.request(method, path, content="[]").status_code == 401


def test_they_are_not_under_v1(http: httpx2.Client) -> None:
    assert http.get("/v1/admin/faults").status_code == 404


# faults


def test_faults_are_set_counted_replaced_and_ended(http: httpx2.Client) -> None:
    drop = {"kind": "status", "calls": ["list"], "status": 503, "times": 2}
    refuse = {"kind": "refusal", "rate": 0.25}
    assert http.get("/admin/faults").json() == []

    assert http.put("/admin/faults", json=[drop, refuse]).json() == [
        {"fault": drop, "hits": 0},
        {"fault": refuse, "hits": 0},
    ]
    assert [http.get("/v1/batches").status_code for _ in range(3)] == [503, 503, 200]
    assert [seen["hits"] for seen in http.get("/admin/faults").json()] == [2, 0]
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
def test_wrong_faults_are_refused_by_the_name_of_the_field_and_change_nothing(
    http: httpx2.Client, body: str, param: str | None
) -> None:
    before = http.put("/admin/faults", json=[{"kind": "refusal"}]).json()

    answer = http.put("/admin/faults", content=body)
    assert answer.status_code == 400
    error = refusal(answer)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)
    assert http.get("/admin/faults").json() == before


def test_the_admin_routes_themselves_are_never_hit(http: httpx2.Client) -> None:
    http.put("/admin/faults", json=[{"kind": "drop"}])

    for path in ("/admin/faults", "/admin/clock", "/admin/calls", "/v1/models"):
        assert http.get(path).status_code == 200


def test_a_test_sets_and_ends_faults_in_a_line(administered: LocalServer) -> None:
    with OpenAI(base_url=administered.base_url, api_key="secret", max_retries=0) as client:
        administered.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.LIST})))
        with pytest.raises(openai.InternalServerError):
            client.batches.list()
        administered.set_faults()
        client.batches.list()


# clock


def test_the_clock_is_shown_and_jumps(http: httpx2.Client) -> None:
    before = http.get("/admin/clock").json()
    assert before["speed"] == 1

    after = http.post("/admin/clock", json={"advance": 5_000}).json()
    assert after["now"] - before["now"] >= 5_000
    assert http.get("/admin/clock").json()["now"] >= after["now"]
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
def test_a_jump_that_makes_no_sense_is_refused(http: httpx2.Client, body: str) -> None:
    before = http.get("/admin/clock").json()["now"]

    answer = http.post("/admin/clock", content=body)
    assert answer.status_code == 400
    assert refusal(answer)["param"] == "advance"
    assert http.get("/admin/clock").json()["now"] - before < 3_600


def test_a_test_that_asks_for_nonsense_is_told_what_the_server_said(administered: LocalServer) -> None:
    with pytest.raises(ValueError, match=r"refused POST clock.*>= 0"):
        administered.advance(-1)
    with pytest.raises(ValueError, match="refused POST clock"):
        administered.advance(math.nan)


# calls


def test_each_call_is_counted_whatever_became_of_it(administered: LocalServer, http: httpx2.Client) -> None:
    before = administered.calls()
    assert set(before) == set(Call)
    http.get("/v1/batches")
    http.get("/v1/batches/batch_unknown")
    http.put("/admin/faults", json=[{"kind": "status", "calls": ["create"]}])
    http.post("/v1/batches", json={})
    http.delete("/admin/faults")
    http.post("/v1/batches", json={})
    http.get("/v1/models")

    after = administered.calls()
    assert {call: after[call] - before[call] for call in after if after[call] != before[call]} == {
        "list": 1,
        "retrieve": 1,
        "create": 2,
    }


# the option --faults


def plan(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "faults.json"
    path.write_text(content)
    return path


def greeting(server: LocalServer) -> str:
    return (server.state / "server.log").read_text()


def test_faults_of_a_file_act_from_the_start_and_the_server_says_so(serve: Serve, tmp_path: Path) -> None:
    path = plan(tmp_path, '[{"kind": "status", "calls": ["list"], "status": 502, "times": 1}]')
    server, client = serve(faults=path)

    assert "Injected faults are on" in greeting(server)
    assert "Admin" not in greeting(server)
    with pytest.raises(openai.InternalServerError):
        client.batches.list()
    client.batches.list()
    with pytest.raises(openai.NotFoundError):
        client.get(server.base_url.replace("/v1", "/admin/faults"), cast_to=object)


def test_admin_faults_take_the_place_of_the_files_until_the_server_ends(serve: Serve, tmp_path: Path) -> None:
    server, client = serve(faults=plan(tmp_path, '[{"kind": "status", "calls": ["list"]}]'), admin=True)
    assert "Injected faults are on" in greeting(server)
    assert "Admin routes are on:" in greeting(server)
    assert f" at {server.base_url.removesuffix('/v1')}/admin." in greeting(server)
    server.set_faults()
    client.batches.list()

    server.stop()
    server.start()
    with pytest.raises(openai.InternalServerError):
        client.batches.list()


def test_by_default_nothing_goes_wrong_and_nothing_is_said_of_it(server: LocalServer, client: OpenAI) -> None:
    assert run(client, chats(20)).status == "completed"
    assert "faults" not in greeting(server)
    assert "Admin" not in greeting(server)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"kind": "explode"}]', "Invalid enum value 'explode' - at `$[0].kind`"),
        ("[", "truncated"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_is_one_line_before_anything_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    path = tmp_path / "faults.json"
    if content is not None:
        path.write_text(content)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)

    # A host that cannot be listened on would be named if it were tried.
    arguments = ["--faults", str(path), "--state", str(tmp_path / "state"), "--host", "192.0.2.1", "--api-key", "x"]
    assert command.run(parser.parse_args(arguments)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert str(path) in printed
    assert said in printed
    assert not (tmp_path / "state").exists()
