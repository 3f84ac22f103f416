"""Faults of result lines and result files, which do not change the counts of the batch."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from openai import OpenAI

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_answers
from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.local.faults import Fault, Faults, Kind, Target
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import NOW, collect, plain_shard
from tests.local.conftest import Serve, make_client
from tests.local.driving import CHAT, answers, chat, chats, failures, results, run, submit, wait

if TYPE_CHECKING:
    from openai.types import Batch

Faulty = tuple[LocalServer, OpenAI]


def output(client: OpenAI, batch: Batch) -> bytes:
    """Return the bytes of the output file."""
    return client.files.content(batch.output_file_id or "").content


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def row(name: str) -> frozenset[str]:
    return frozenset({name})


# faults of lines


def test_a_missing_line_is_still_counted(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.MISSING_LINE, custom_ids=row("row-1")))
    batch = run(client, chats(3))

    assert set(answers(client, batch)) == {"row-0", "row-2"}
    assert counts(batch) == (3, 3, 0)
    assert batch.error_file_id is None


def test_a_file_without_any_of_its_lines_is_empty(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.MISSING_LINE), Fault(kind=Kind.NO_FINAL_NEWLINE))
    batch = run(client, chats(3))

    assert batch.output_file_id
    assert output(client, batch) == b""
    assert client.files.retrieve(batch.output_file_id).bytes == 0
    assert counts(batch) == (3, 3, 0)


def test_a_duplicate_line_is_in_the_file_twice(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.DUPLICATE_LINE, custom_ids=row("row-7")))
    batch = run(client, chats(40))

    lines = output(client, batch).splitlines()
    (duplicate,) = (line for line, times in Counter(lines).items() if times == 2)
    assert json.loads(duplicate)["custom_id"] == "row-7"
    assert len(lines) == 41
    assert counts(batch) == (40, 40, 0)


def test_a_broken_line_is_invalid_json_on_one_line(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.BROKEN_LINE, custom_ids=row("row-1")))
    batch = run(client, chats(3))

    lines = output(client, batch).splitlines()
    assert len(lines) == 3
    (broken,) = (line for line in lines if b'"row-1"' in line)
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    assert {json.loads(line)["custom_id"] for line in lines if line != broken} == {"row-0", "row-2"}
    assert counts(batch) == (3, 3, 0)


def test_faults_hit_lines_of_the_error_file_too(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(
        Fault(kind=Kind.MISSING_LINE, custom_ids=row("bad-0")),
        Fault(kind=Kind.BROKEN_LINE, custom_ids=row("bad-1")),
    )
    batch = run(client, [chat("good", "hello"), *(chat(f"bad-{n}", "[[fail:400]]") for n in range(3))])

    lines = client.files.content(batch.error_file_id or "").content.splitlines()
    assert sorted(b"bad-2" in line for line in lines) == [False, True]
    assert counts(batch) == (4, 1, 3)


def test_faults_hit_lines_of_requests_that_never_ran_too(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.STUCK), Fault(kind=Kind.MISSING_LINE, custom_ids=row("row-1")))
    batch = wait(client, submit(client, chats(3)), lambda current: current.status == "in_progress")
    final = wait(client, client.batches.cancel(batch.id))

    assert set(failures(client, final)) == {"row-0", "row-2"}


def test_a_row_whose_line_a_fault_hit_once_has_a_line_the_next_time(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.MISSING_LINE, custom_ids=row("row-1"), times=1))

    assert set(answers(client, run(client, chats(2)))) == {"row-0"}
    assert set(answers(client, run(client, chats(2)))) == {"row-0", "row-1"}


# further lines for a row


def test_an_error_line_can_precede_the_answer_in_the_same_file(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.ERROR_LINE_BEFORE, custom_ids=row("row-1"), status=503))
    batch = run(client, chats(3))

    lines = [line for line in results(client, batch.output_file_id) if line["custom_id"] == "row-1"]
    assert [line["response"]["status_code"] for line in lines] == [503, 200]
    assert (counts(batch), batch.error_file_id) == ((3, 3, 0), None)


def test_an_error_line_can_be_in_the_error_file_besides_the_answer(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.ERROR_LINE_BESIDES, custom_ids=row("row-1"), message="Try again."))
    batch = run(client, chats(3))

    assert set(answers(client, batch)) == {"row-0", "row-1", "row-2"}
    (line,) = results(client, batch.error_file_id)
    assert (line["custom_id"], line["response"]["body"]["error"]["message"]) == ("row-1", "Try again.")
    assert counts(batch) == (3, 3, 0)


# odd values in a line


def field_line(faulty: Faulty, path: str, text: str | None) -> bytes:
    """Return the line of a row in which this value is replaced, after checking that no other row is hit."""
    server, client = faulty
    server.set_faults(Fault(kind=Kind.LINE_FIELD, custom_ids=row("row-1"), path=path, json=text))
    batch = run(client, chats(2))
    line, other = sorted(output(client, batch).splitlines(), key=lambda line: b'"row-0"' in line)
    assert json.loads(other)["response"]["body"]["usage"]["prompt_tokens"] > 0
    assert counts(batch) == (2, 2, 0)
    return line


@pytest.mark.parametrize("usage", ["null", '"many"', "[]", '{"prompt_tokens":-1}', f'{{"prompt_tokens":{2**70}}}'])
def test_the_usage_of_a_line_can_be_anything(faulty: Faulty, usage: str) -> None:
    line = json.loads(field_line(faulty, "response.body.usage", usage))
    assert line["response"]["body"]["usage"] == json.loads(usage)


def test_a_field_can_be_absent(faulty: Faulty) -> None:
    assert "usage" not in json.loads(field_line(faulty, "response.body.usage", None))["response"]["body"]


@pytest.mark.parametrize("text", ["1e400", '"\\ud83d"', "[" * 100_000 + "]" * 100_000])
def test_a_value_can_be_one_that_no_encoder_writes(faulty: Faulty, text: str) -> None:
    line = field_line(faulty, "response.body.choices.0.message.content", text)
    assert f'"content":{text}'.encode() in line


# faults of files


def test_crlf_ends_every_line_of_a_file(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.CRLF))
    content = output(client, run(client, chats(3)))

    assert content.endswith(b"\r\n")
    assert content.count(b"\r\n") == content.count(b"\n") == 3


@pytest.mark.parametrize("other_faults", [(), (Fault(kind=Kind.CRLF),)])
def test_a_file_without_a_final_newline_ends_with_its_last_line(
    faulty: Faulty, other_faults: tuple[Fault, ...]
) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.NO_FINAL_NEWLINE), *other_faults)
    batch = run(client, chats(3))

    content = output(client, batch)
    assert content.endswith(b"}")
    assert content.count(b"\n") == 2
    assert client.files.retrieve(batch.output_file_id or "").bytes == len(content)


def test_a_fault_counts_each_file_of_a_batch(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.CRLF, skip=1, times=1))
    batch = run(client, [chat("good", "hello"), chat("bad", "[[fail:400]]")])

    assert b"\r" not in output(client, batch)
    assert client.files.content(batch.error_file_id or "").content.endswith(b"\r\n")
    assert b"\r" not in output(client, run(client, chats(1)))


def test_a_fault_does_not_count_a_file_that_is_not_written(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.CRLF, times=1))
    batch = run(client, [chat("bad", "[[fail:400]]")])

    assert batch.output_file_id is None
    assert client.files.content(batch.error_file_id or "").content.endswith(b"\r\n")


def test_a_fault_hits_the_same_lines_after_a_kill(serve: Serve, tmp_path: Path) -> None:
    plan = tmp_path / "faults.json"
    plan.write_bytes(msgspec.json.encode([Fault(kind=Kind.MISSING_LINE, rate=0.5)]))
    server, client = serve(faults=plan, seed=3, finalizing=600)
    same_faults = Faults(3, lambda key: True, (Fault(kind=Kind.MISSING_LINE, rate=0.5),))
    batch = wait(client, submit(client, chats(40)), lambda current: current.status == "finalizing")
    server.kill()

    with LocalServer(server.state, faults=plan, seed=3) as restarted, make_client(restarted) as reader:
        final = wait(reader, reader.batches.retrieve(batch.id))
        remaining = {f"row-{n}" for n in range(40) if same_faults.draw_row_fault(Target.LINE, f"row-{n}") is None}
        assert 5 < len(remaining) < 35
        assert set(answers(reader, final)) == remaining


# reading damaged files


def test_every_row_gets_one_outcome_from_damaged_files(faulty: Faulty, tmp_path: Path) -> None:
    server, client = faulty
    rows = [f"row-{number}" for number in range(300)]
    plan = (
        *(Fault(kind=kind, rate=0.2) for kind in (Kind.MISSING_LINE, Kind.DUPLICATE_LINE, Kind.BROKEN_LINE)),
        Fault(kind=Kind.CRLF),
        Fault(kind=Kind.NO_FINAL_NEWLINE),
        *(Fault(kind=kind, rate=0.2) for kind in (Kind.ERROR, Kind.STATUS_0, Kind.REQUEST_TIMEOUT, Kind.SEPARATORS)),
    )
    server.set_faults(*plan)
    batch = run(client, chats(300))
    # The seed of the server is 0, so this second set of the same faults draws the same rows.
    same_faults = Faults(0, lambda key: True, plan)
    lost_rows, answer_faults = set(), {}
    for name in rows:
        line_fault = same_faults.draw_row_fault(Target.LINE, name)
        answer_fault = same_faults.draw_row_fault(Target.ANSWER, name)
        answer_faults[name] = answer_fault.kind if answer_fault else None
        if line_fault is not None and line_fault.kind is not Kind.DUPLICATE_LINE:
            lost_rows.add(name)
    assert 60 < len(lost_rows) < 160
    folder = LocalFolder(tmp_path / "job")
    files = [
        collect(folder, f"{number}.jsonl", client.files.content(file_id or "").content)
        for number, file_id in enumerate((batch.output_file_id, batch.error_file_id))
    ]
    record = Settled("s0001", 1, batch.id, "completed", NOW, files=files)
    index = [RowIndex(name, "0" * 64) for name in rows]
    line_answers = list(read_answers(folder, plain_shard("s0001", requests=300), record, index, CHAT, None))

    assert sorted(line for line, _ in line_answers) == list(range(300)), "each row has one answer"
    outcomes = {rows[line]: answer.outcome for line, answer in line_answers}
    expected = {
        Kind.ERROR: Outcome.FAILED,
        Kind.STATUS_0: Outcome.FAILED,
        Kind.REQUEST_TIMEOUT: Outcome.EXPIRED,
        Kind.SEPARATORS: Outcome.SUCCEEDED,
        None: Outcome.SUCCEEDED,
    }
    assert outcomes == {name: Outcome.MISSING if name in lost_rows else expected[answer_faults[name]] for name in rows}
    assert set(outcomes.values()) == {Outcome.MISSING, *expected.values()}
    transient = {rows[line] for line, answer in line_answers if answer.transient}
    assert transient == {
        name for name in rows if name not in lost_rows and answer_faults[name] in (Kind.ERROR, Kind.STATUS_0)
    }
    assert counts(batch)[0] == counts(batch)[1] + counts(batch)[2] == 300
