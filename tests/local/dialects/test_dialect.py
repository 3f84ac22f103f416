"""Choosing dialects and switches, and the server without any."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import read_line
from airflow_provider_batch.core.provider.batch import read_batch
from airflow_provider_batch.local import command
from airflow_provider_batch.local.dialects import DIALECTS, OPENAI, SWITCHES, build_dialect
from airflow_provider_batch.local.http.app import create_app
from airflow_provider_batch.local.settings import Settings
from tests.local.conftest import Serve
from tests.local.driving import CHAT, chats, failures, run

BATCH = {
    "id": "batch_00000000000000000000000000000001",
    "object": "batch",
    "endpoint": CHAT,
    "model": "gpt-5-mini",
    "errors": {"object": "list", "data": [{"code": "c", "message": "m", "param": None, "line": 2}]},
    "input_file_id": "file-0000000000000000000000",
    "completion_window": "24h",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1_800_000_000,
    "in_progress_at": 1_800_000_001,
    "expires_at": 1_800_086_400,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 3, "completed": 1, "failed": 1},
    "usage": {},
    "metadata": {"nonce": "n"},
}
STATUSES = ("validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled")
RESPONSES: list[dict[str, Any] | None] = [
    {"status_code": 200, "request_id": "r", "body": {"choices": [{"message": {"content": "hi"}}]}},
    {"status_code": 400, "request_id": "r", "body": {"error": {"message": "bad", "code": None, "type": "t"}}},
    {"status_code": 500, "request_id": "r", "body": {"error": {"message": "broke", "code": "server_error"}}},
    {"status_code": 0, "request_id": None, "body": None},
    None,
]


def test_openai_is_the_dialect_without_switches() -> None:
    assert build_dialect([]) == build_dialect(["openai"]) == OPENAI
    assert OPENAI.switches == frozenset()
    assert Settings().dialect is OPENAI


def test_dialects_and_switches_combine_in_any_order_and_may_be_repeated() -> None:
    combined = build_dialect(["no-has-more", "groq", "empty-ids", "groq"])
    assert combined == build_dialect(["empty-ids", "groq"])
    assert combined.switches == {*DIALECTS["groq"], "empty-ids"}


def test_every_dialect_consists_of_existing_switches() -> None:
    for switches in DIALECTS.values():
        assert set(switches) <= SWITCHES


def test_an_unknown_name_raises_an_error_that_lists_all_names() -> None:
    with pytest.raises(
        ValueError, match=r"no dialect or switch 'azur'\. Dialects: azure, .*Single switches: .*empty-ids"
    ) as error:
        build_dialect(["empty-ids", "azur"])
    for name in (*DIALECTS, *SWITCHES):
        assert name in str(error.value)


def test_serve_rejects_an_unknown_dialect_and_lists_all_dialects(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args(["--dialect", "groq", "--dialect=empty-ids"]).dialects == ["groq", "empty-ids"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--dialect", "grok"])
    assert "argument --dialect: There is no dialect or switch 'grok'. Dialects: azure," in capsys.readouterr().err


def test_serve_lists_its_switches_at_startup(serve: Serve) -> None:
    server, client = serve(dialects=("vllm", "empty-ids"))

    log = (server.state / "server.log").read_text(encoding="utf-8")
    assert "Differences from OpenAI (--dialect): empty-ids, in-order, one-file, vllm-lines." in log
    batch = run(client, chats(1))
    assert batch.error_file_id == ""
    assert failures(client, batch) == {}


def test_no_middleware_is_installed_without_a_dialect(tmp_path: Path) -> None:
    openai_app = create_app(tmp_path / "openai", Settings())
    assert openai_app.user_middleware == []
    azure_app = create_app(tmp_path / "azure", Settings(dialect=build_dialect(["azure"])))
    assert len(azure_app.user_middleware) == 1
    for app in (openai_app, azure_app):
        app.state.server.store.close()


def test_answers_and_lines_are_not_copied_without_a_dialect() -> None:
    batch: dict[str, Any] = json.loads(json.dumps(BATCH)) | {"status": "in_progress"}
    original = json.dumps(batch)
    rewrites = (
        OPENAI.rewrite_batch,
        OPENAI.create_reply,
        OPENAI.rewrite_file,
        OPENAI.upload_reply,
        OPENAI.rewrite_page,
    )
    for rewrite in rewrites:
        assert rewrite(batch) is batch
    assert json.dumps(batch) == original
    line = b'{"id": "batch_req_1"}'
    assert OPENAI.rewrite_line(line) is line
    assert (OPENAI.window("24h"), OPENAI.window("1d"), OPENAI.window("48h")) == ("24h", None, None)
    assert OPENAI.lifetime("24h", 86_400) == 86_400


switch_sets = st.sets(st.sampled_from(sorted(SWITCHES)))


@given(switch_sets, st.sampled_from(STATUSES), st.sampled_from([BATCH["errors"], None]))
def test_a_batch_stays_readable_json_with_any_set_of_switches(
    switches: set[str], status: str, errors: dict[str, Any] | None
) -> None:
    dialect = build_dialect(switches)

    def batch() -> dict[str, Any]:
        copy: dict[str, Any] = json.loads(json.dumps(BATCH))
        return copy | {"status": status, "errors": errors and json.loads(json.dumps(errors))}

    for answer in (dialect.rewrite_batch(batch()), dialect.create_reply(batch())):
        view = read_batch(json.loads(json.dumps(answer)))
        assert view.id == BATCH["id"]
        assert view.has_known_status
        assert view.status.ended == (status in ("failed", "completed", "expired", "cancelled"))
        assert view.created_at == BATCH["created_at"]
    page = {"object": "list", "data": [], "first_id": "a", "last_id": "b", "has_more": True}
    assert json.dumps(dialect.rewrite_page(page))


@given(switch_sets, st.sampled_from(RESPONSES))
def test_a_line_stays_readable_and_keeps_its_outcome_with_any_set_of_switches(
    switches: set[str], response: dict[str, Any] | None
) -> None:
    error = None if response else {"code": "batch_expired", "message": "late"}
    openai_line = json.dumps({"id": "batch_req_1", "custom_id": "row-1", "response": response, "error": error}).encode()

    read, expected = (
        read_line(build_dialect(switches).rewrite_line(openai_line), CHAT, None),
        read_line(openai_line, CHAT, None),
    )

    assert read is not None
    assert expected is not None
    assert read[0] == "row-1"
    assert read[1].outcome is expected[1].outcome


@given(st.text(max_size=6), st.sampled_from(sorted(DIALECTS)))
def test_any_completion_window_is_accepted_or_rejected_by_every_dialect(text: str, name: str) -> None:
    window = build_dialect([name]).window(text)
    assert window is None or build_dialect([name]).lifetime(window, 86_400) > 0
