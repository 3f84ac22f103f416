"""Result files give exactly one answer for every row of a shard."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.ledger.records import CollectedFile, Failure, Settled
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, NOW, chat_line, never_ran_line, plain_shard, request, seal_all, settle


class InMemoryFolder:
    """A folder with result files in memory."""

    uri = "memory:"

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def reader(self, name: str) -> AbstractContextManager[BinaryIO]:
        return nullcontext(io.BytesIO(self._files[name]))

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        raise NotImplementedError

    def create(self, name: str, data: bytes) -> bool:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def read(self, name: str) -> bytes | None:
        raise NotImplementedError

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        raise NotImplementedError

    def names(self, under: str) -> list[str]:
        raise NotImplementedError

    def folders(self, under: str) -> list[str]:
        raise NotImplementedError


def rows_named(*custom_ids: str) -> list[RowIndex]:
    return [RowIndex(custom_id, "0" * 64) for custom_id in custom_ids]


def record_file(name: str, data: bytes) -> CollectedFile:
    return CollectedFile(name, len(data), hashlib.sha256(data).hexdigest())


def answers_of(files: dict[str, bytes], rows: list[RowIndex]) -> dict[int, Answer]:
    """Return the answers by line; fail if a line has two."""
    settled = Settled(
        "s0001", 1, "b", "completed", NOW, files=[record_file(name, data) for name, data in files.items()]
    )
    answers: dict[int, Answer] = {}
    for line, answer in read_answers(InMemoryFolder(files), plain_shard("s0001"), settled, rows, CHAT, None):
        assert line not in answers
        answers[line] = answer
    return answers


def outcomes_of(files: dict[str, bytes], rows: list[RowIndex]) -> list[str]:
    answers = answers_of(files, rows)
    return [answers[line].outcome.value for line in sorted(answers)]


def join_lines(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_answers_are_matched_to_rows_in_any_order_of_the_lines() -> None:
    data = join_lines(chat_line("c", "3"), chat_line("a", "1"), chat_line("b", "2"))
    answers = answers_of({"output": data}, rows_named("a", "b", "c"))
    assert {line: answer.value for line, answer in answers.items()} == {0: "1", 1: "2", 2: "3"}


def test_rows_are_answered_from_the_output_and_the_error_file() -> None:
    files = {"output": join_lines(chat_line("a")), "error": join_lines(never_ran_line("b"), chat_line("c", status=500))}
    assert outcomes_of(files, rows_named("a", "b", "c")) == ["succeeded", "expired", "failed"]


def test_a_row_without_a_line_is_missing() -> None:
    assert outcomes_of({"output": join_lines(chat_line("a"))}, rows_named("a", "b")) == ["succeeded", "missing"]
    assert outcomes_of({}, rows_named("a", "b")) == ["missing", "missing"]
    assert outcomes_of({"output": b"", "error": b""}, rows_named("a")) == ["missing"]


def test_the_better_of_several_lines_for_a_row_counts_in_any_order_and_file() -> None:
    lines = [
        never_ran_line("a"),
        chat_line("a", status=500),
        chat_line("a", status=429),
        chat_line("a", "fine"),
        b'{"custom_id": "a", "response": null, "error": null}',
        b'{"custom_id": "a"',
    ]
    neighbour = chat_line("b", status=400)
    for order in itertools.permutations(lines, 4):
        expected = "succeeded" if lines[3] in order else "failed"
        assert outcomes_of({"output": join_lines(*order, neighbour)}, rows_named("a", "b")) == [expected, "failed"]
        files = {"output": join_lines(*order[:2]), "error": join_lines(neighbour, *order[2:])}
        assert outcomes_of(files, rows_named("a", "b")) == [expected, "failed"]


def test_the_first_of_two_equal_lines_for_a_row_counts() -> None:
    data = join_lines(chat_line("a", "first"), chat_line("a", "second"))
    assert answers_of({"output": data}, rows_named("a"))[0].value == "first"


def test_an_answer_in_the_output_file_takes_precedence_over_the_error_file() -> None:
    files = {"output": join_lines(chat_line("a")), "error": join_lines(never_ran_line("a"))}
    assert outcomes_of(files, rows_named("a")) == ["succeeded"]


def test_lines_with_the_same_id_are_separate_answers() -> None:
    """In the sample of an expired batch that OpenAI gives, two lines have the id batch_req_123."""
    data = join_lines(never_ran_line("a"), never_ran_line("b"))
    assert outcomes_of({"error": data}, rows_named("a", "b")) == ["expired", "expired"]


def test_a_line_for_a_row_of_another_shard_is_ignored() -> None:
    assert outcomes_of({"output": join_lines(chat_line("z"), chat_line("a"))}, rows_named("a")) == ["succeeded"]


def test_one_broken_line_costs_only_its_own_row() -> None:
    broken = chat_line("b")[:-20]
    data = join_lines(chat_line("a"), broken, b"<html>", b"\xff\xfe", chat_line("c"))
    assert outcomes_of({"output": data}, rows_named("a", "b", "c")) == ["succeeded", "missing", "succeeded"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n\r\n", "\n \t\n"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_ending_is_accepted_and_the_last_line_needs_none(end: str, last: bool) -> None:
    data = end.join(chat_line(name).decode() for name in "abc") + (end if last else "")
    assert outcomes_of({"output": data.encode()}, rows_named("a", "b", "c")) == ["succeeded"] * 3


SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"


def test_unicode_line_separators_do_not_split_lines() -> None:
    """JSON text may contain these characters; str.splitlines and iter_lines of httpx split there."""
    text = f"one{SEPARATORS[:3]}two"
    line = json.dumps(json.loads(chat_line("a", text)), ensure_ascii=False).encode()
    assert text.encode() in line
    assert answers_of({"output": line}, rows_named("a"))[0].value == text


def test_a_file_of_several_chunks_is_read_completely(folder: LocalFolder) -> None:
    names = [f"row-{number}" for number in range(3000)]
    shard = seal_all(folder, [request(name) for name in names])[0]
    settled = settle(folder, shard, [chat_line(name, "ü€😀" * 100) for name in reversed(names)])
    assert settled.files[0].bytes > 3 * (1 << 20)
    rows = read_rows(folder, shard)
    answers = dict(read_answers(folder, shard, settled, rows, CHAT, None))
    assert sorted(answers) == list(range(3000))
    assert {answer.value for answer in answers.values()} == {"ü€😀" * 100}


def test_a_line_longer_than_a_chunk_is_one_line(folder: LocalFolder) -> None:
    shard = seal_all(folder, [request("a"), request("b")])[0]
    settled = settle(folder, shard, [chat_line("a", "€" * 1_000_000), chat_line("b")])
    answers = dict(read_answers(folder, shard, settled, read_rows(folder, shard), CHAT, None))
    assert (answers[0].value, answers[1].outcome) == ("€" * 1_000_000, Outcome.SUCCEEDED)


def test_a_lost_file_is_an_error_and_does_not_make_rows_missing(folder: LocalFolder) -> None:
    shard = seal_all(folder, [request("a")])[0]
    settled = Settled("s0001", 1, "b", "completed", NOW, files=[CollectedFile("g001/record_file/gone.jsonl", 1, "")])
    with pytest.raises(StagingError, match=r"gone\.jsonl"):
        list(read_answers(folder, shard, settled, read_rows(folder, shard), CHAT, None))


def test_the_index_has_the_rows_in_the_order_of_the_file(folder: LocalFolder) -> None:
    ids = ["b", "a", "\u2028c", 'd"\n']
    shard = seal_all(folder, [request(custom_id) for custom_id in ids], carry=[[1], [None], ["x"], [{"k": [1]}]])[0]
    rows = read_rows(folder, shard)
    assert [row.custom_id for row in rows] == ids
    assert [row.carry for row in rows] == [[1], [None], ["x"], [{"k": [1]}]]
    assert [row.number for row in rows] == [1, 2, 3, 4]
    with folder.reader(shard.file) as file:
        assert [json.loads(line)["custom_id"] for line in file] == ids


def test_an_embedding_answer_without_a_vector_for_each_input_is_incomplete() -> None:
    body = {"object": "list", "data": [{"index": 0, "embedding": [1.0, 0.0]}], "model": "m"}
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}).encode()
    settled = Settled("s0001", 1, "b", "completed", NOW, files=[record_file("output", line)])
    rows = [RowIndex("a", "0" * 64, inputs=2)]
    ((_, answer),) = read_answers(
        InMemoryFolder({"output": line}), plain_shard("s0001"), settled, rows, "/v1/embeddings", None
    )
    assert (answer.outcome, answer.error_message) == (Outcome.INCOMPLETE, "The answer has 1 vector for 2 inputs.")


# Batches that failed validation


def failed_validation(rows: int, invalid_lines: dict[int, str]) -> list[tuple[str, str | None, bool]]:
    settled = Settled(
        "s0001", 1, "b", "failed", NOW, failure=Failure.LINES, message="bad lines", line_errors=invalid_lines
    )
    names = rows_named(*(str(number) for number in range(rows)))
    answers = dict(read_answers(InMemoryFolder({}), plain_shard("s0001"), settled, names, CHAT, None))
    assert sorted(answers) == list(range(rows))
    assert {answer.outcome for answer in answers.values()} == {Outcome.FAILED}
    return [(answers[n].error_code or "", answers[n].error_message, answers[n].transient) for n in range(rows)]


def test_if_a_batch_fails_validation_only_rows_without_an_invalid_line_may_be_retried() -> None:
    assert failed_validation(3, {1: "invalid_url: no"}) == [
        ("batch_failed", "The batch failed validation, so this request did not run: bad lines", True),
        ("invalid_line", "invalid_url: no", False),
        ("batch_failed", "The batch failed validation, so this request did not run: bad lines", True),
    ]


def test_a_batch_that_failed_without_naming_a_line_fails_all_its_rows() -> None:
    assert [transient for _, _, transient in failed_validation(3, {})] == [False] * 3


def test_a_batch_that_failed_for_lines_that_do_not_exist_fails_all_its_rows() -> None:
    """Otherwise the same rows would be sealed, uploaded and refused forever."""
    assert [transient for _, _, transient in failed_validation(3, {3: "x", 17: "y", -1: "z"})] == [False] * 3


# What always holds

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(SEPARATORS + "€😀"), max_size=12)


@st.composite
def result_files(draw: st.DrawFn) -> tuple[list[str], dict[str, bytes], dict[str, set[Any]]]:
    """Draw the ids of rows, files with any number of answers to each, and these answers by id."""
    ids = draw(st.lists(texts, min_size=1, max_size=8, unique=True))
    lines: list[bytes] = []
    contents: dict[str, set[Any]] = {custom_id: set() for custom_id in ids}
    for custom_id in ids:
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
            content = draw(texts.filter(bool))
            line = json.loads(chat_line(custom_id, content))
            lines.append(json.dumps(line, ensure_ascii=draw(st.booleans())).encode())
            contents[custom_id].add(content)
    foreign = draw(st.lists(texts.filter(lambda name: name not in ids), max_size=2))
    lines += [chat_line(name) for name in foreign]
    garbage = st.binary(max_size=20) | st.sampled_from([b"{", b"null", b"[]", b'{"custom_id": 3}', b"\xff", b" "])
    lines += draw(st.lists(garbage.map(lambda data: data.replace(b"\n", b"")), max_size=3))
    lines = draw(st.permutations(lines))
    split = draw(st.integers(0, len(lines)))
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    files = {}
    for name, part in (("output", lines[:split]), ("error", lines[split:])):
        files[name] = end.join(part) + (end if draw(st.booleans()) else b"")
    return ids, files, contents


@settings(max_examples=300, deadline=None)
@given(result_files())
def test_every_row_gets_exactly_one_answer_from_its_own_lines(
    case: tuple[list[str], dict[str, bytes], dict[str, set[str]]],
) -> None:
    ids, files, contents = case
    answers = answers_of(files, rows_named(*ids))
    assert sorted(answers) == list(range(len(ids)))
    for line, custom_id in enumerate(ids):
        answer = answers[line]
        if contents[custom_id]:
            assert answer.outcome is Outcome.SUCCEEDED
            assert answer.value in contents[custom_id]
        else:
            assert answer.outcome is Outcome.MISSING


def test_a_changed_file_is_an_error_with_its_name_and_batch() -> None:
    data = join_lines(chat_line("a"))
    settled = Settled("s0001", 1, "batch_7", "completed", NOW, files=[record_file("output.jsonl", data)])
    changed_folder = InMemoryFolder({"output.jsonl": data + b"\n"})
    with pytest.raises(StagingError, match=r"output\.jsonl is not the file .* batch_7"):
        list(read_answers(changed_folder, plain_shard("s0001"), settled, rows_named("a"), CHAT, None))


@pytest.mark.parametrize("value", ["NaN", '"\\ud800"'])
def test_a_line_with_json_that_only_python_accepts_answers_its_row(value: str) -> None:
    line = chat_line("a").replace(b'"custom_id"', b'"extra": ' + value.encode() + b', "custom_id"', 1)
    assert outcomes_of({"output": join_lines(line)}, rows_named("a")) == ["succeeded"]
