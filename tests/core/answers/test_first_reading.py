"""The worker that collects result files parses each line once, and writes down which rows did not succeed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.agreement import Lines
from airflow_provider_batch.core.answers.first_reading import FirstReading
from airflow_provider_batch.core.answers.outcome import MISSING, Answer, Outcome, read_line
from airflow_provider_batch.core.answers.result_files import read_answers, read_unsuccessful
from airflow_provider_batch.core.answers.unsuccessful import without_texts, write_unsuccessful
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Failure, Settled
from airflow_provider_batch.exceptions import StagingError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import (
    CHAT,
    NOW,
    chat_line,
    collect,
    never_ran_line,
    plain_shard,
    temporary_folder,
)

#: one line of each kind: usable, incomplete, refused, failed for now and for good, expired, broken, and no line
KINDS: dict[str, Callable[[str], bytes]] = {
    "succeeded": chat_line,
    "cut off": lambda name: chat_line(name).replace(b'"stop"', b'"length"'),
    "refused": lambda name: chat_line(name).replace(b'"stop"', b'"content_filter"'),
    "failed for now": lambda name: chat_line(name, status=500),
    "failed for good": lambda name: chat_line(name, status=400),
    "expired": never_ran_line,
    "may be billed": lambda name: json.dumps({**json.loads(never_ran_line(name)), "may_be_billed": True}).encode(),
    "broken": lambda name: chat_line(name)[:40],
    "not JSON": lambda name: b"<html>",
    "empty": lambda name: b"",
    "of another shard": lambda name: chat_line(f"other {name}"),
}


class Collected(NamedTuple):
    """A shard whose result files are in staging."""

    folder: LocalFolder
    shard: Shard
    rows: list[RowIndex]
    #: the lines of each result file
    files: list[list[bytes]]
    settled: Settled

    def first_reading(self) -> FirstReading:
        return FirstReading(self.folder, self.settled, self.rows, CHAT, None)

    def with_unsuccessful(self) -> Collected:
        """Return the same with the file of the rows that did not succeed."""
        reading = self.first_reading()
        for _ in reading:
            pass
        sha256 = write_unsuccessful(self.folder, "unsuccessful.jsonl", reading.unsuccessful.values())
        settled = msgspec.structs.replace(
            self.settled, unsuccessful_file="unsuccessful.jsonl", unsuccessful_sha256=sha256
        )
        return self._replace(settled=settled)

    def answers(self) -> dict[int, Answer]:
        return unique(read_answers(self.folder, self.shard, self.settled, self.rows, CHAT, None, bodies=True))

    def unsuccessful(self) -> dict[int, Answer]:
        return unique(read_unsuccessful(self.folder, self.shard, self.settled, self.rows, CHAT, None))


def unique(answers: Iterable[tuple[int, Answer]]) -> dict[int, Answer]:
    """Return the answers by row. Fail if a row has two."""
    by_row: dict[int, Answer] = {}
    for row, answer in answers:
        assert row not in by_row
        by_row[row] = answer
    return by_row


def best_answers(collected: Collected) -> list[Answer]:
    """Return the answer of each row, by the rule itself: the best of all its lines, and the first of equal ones."""
    best = [MISSING] * len(collected.rows)
    numbers = {row.custom_id: number for number, row in enumerate(collected.rows)}
    for line in (line for lines in collected.files for line in lines):
        result = read_line(line, CHAT, None)
        number = numbers.get(result[0]) if result else None
        if result and number is not None and result[1].outcome.rank > best[number].outcome.rank:
            best[number] = result[1]
    return best


def collect_files(folder: LocalFolder, rows: int, files: list[list[bytes]]) -> Collected:
    """Put result files with these lines into staging."""
    records = [
        collect(folder, f"collected-{number}", b"".join(line + b"\n" for line in lines))
        for number, lines in enumerate(files)
    ]
    index = [RowIndex(f"row-{number}", "0" * 64) for number in range(rows)]
    settled = Settled("s0001", 1, "batch_1", "completed", NOW, files=records)
    return Collected(folder, plain_shard("s0001", requests=rows), index, files, settled)


lines_of_rows = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 4)), max_size=15)


@settings(max_examples=200, deadline=None)
@given(st.lists(lines_of_rows, max_size=2))
def test_every_way_to_read_the_files_gives_each_row_its_best_answer(files: list[list[tuple[str, int]]]) -> None:
    with temporary_folder() as folder:
        lines = [[KINDS[kind](f"row-{row}") for kind, row in file] for file in files]
        collected = collect_files(folder, 5, lines)
        best = best_answers(collected)
        unsuccessful = {
            row: without_texts(answer) for row, answer in enumerate(best) if answer.outcome is not Outcome.SUCCEEDED
        }

        read_first = unique(collected.first_reading())
        assert [without_texts(read_first[row]) for row in range(5)] == list(map(without_texts, best))
        assert collected.unsuccessful() == unsuccessful
        assert collected.answers() == dict(enumerate(best))

        recorded = collected.with_unsuccessful()
        assert recorded.unsuccessful() == unsuccessful
        assert recorded.answers() == dict(enumerate(best))


def test_lines_are_counted_by_what_they_are(folder: LocalFolder) -> None:
    kinds = ["succeeded", "broken", "not JSON", "empty", "of another shard"]
    lines = [KINDS[kind]("row-0") for kind in kinds] + [chat_line("row-1"), never_ran_line("row-0"), b"{}", b" \t"]
    reading = collect_files(folder, 3, [lines[:4], lines[4:]]).first_reading()
    assert len(list(reading)) == 3
    assert reading.lines == Lines(rows=2, repeated=1, broken=1, foreign=3)


def test_files_that_differ_from_the_collected_ones_are_an_error(folder: LocalFolder) -> None:
    collected = collect_files(folder, 1, [[chat_line("row-0")]])
    (folder.path / "collected-0").write_bytes(chat_line("row-0", "changed"))
    with pytest.raises(StagingError, match="collected-0 is not the file that was collected from batch batch_1"):
        list(collected.first_reading())


MIXED = [[chat_line("row-0"), never_ran_line("row-1")], [chat_line("row-1", status=500), KINDS["cut off"]("row-2")]]


class CountingFolder(LocalFolder):
    """A folder on a local disk that notes which files are read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read_files: list[str] = []

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        self.read_files.append(name)
        with super().reader(name) as file:
            yield file


def test_a_landing_reads_each_result_file_once(tmp_path: Path) -> None:
    folder = CountingFolder(tmp_path)
    recorded = collect_files(folder, 4, MIXED).with_unsuccessful()
    folder.read_files.clear()
    recorded.answers()
    assert sorted(folder.read_files) == ["collected-0", "collected-1", "unsuccessful.jsonl"]


def test_no_result_file_is_read_to_find_the_rows_to_retry(tmp_path: Path) -> None:
    folder = CountingFolder(tmp_path)
    recorded = collect_files(folder, 4, MIXED).with_unsuccessful()
    folder.read_files.clear()
    assert set(recorded.unsuccessful()) == {1, 2, 3}
    assert folder.read_files == ["unsuccessful.jsonl"]


def test_if_every_row_succeeded_nothing_is_read_to_find_the_rows_to_retry(tmp_path: Path) -> None:
    folder = CountingFolder(tmp_path)
    collected = collect_files(folder, 2, [[chat_line("row-0"), chat_line("row-1")]])
    settled = msgspec.structs.replace(collected.settled, outcomes={"succeeded": 2})
    assert collected._replace(settled=settled).unsuccessful() == {}
    assert folder.read_files == []


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def drop_a_row(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))


def change_a_bit(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def replace_with_garbage(file: Path) -> None:
    file.write_bytes(b"[" * 100_000)


@pytest.mark.parametrize("damage", [remove, cut, drop_a_row, change_a_bit, replace_with_garbage])
def test_a_damaged_file_of_unsuccessful_rows_is_not_believed(
    folder: LocalFolder, damage: Callable[[Path], None]
) -> None:
    collected = collect_files(folder, 4, MIXED)
    recorded = collected.with_unsuccessful()
    damage(folder.path / "unsuccessful.jsonl")
    assert recorded.unsuccessful() == collected.unsuccessful()
    assert recorded.answers() == collected.answers()


def test_wrong_positions_cost_no_row_its_answer(folder: LocalFolder) -> None:
    """Another version of the package may read a line in another way than the one that collected it."""
    recorded = collect_files(folder, 4, MIXED).with_unsuccessful()
    lines = [[chat_line("row-3"), *MIXED[1]], [chat_line("row-0", status=400)]]
    moved = collect_files(folder, 4, lines)
    settled = msgspec.structs.replace(recorded.settled, files=moved.settled.files)
    outcomes = {row: answer.outcome.value for row, answer in recorded._replace(settled=settled).answers().items()}
    assert outcomes == {0: "failed", 1: "failed", 2: "incomplete", 3: "succeeded"}


def test_a_batch_that_failed_validation_needs_no_file(folder: LocalFolder) -> None:
    collected = collect_files(folder, 2, [])
    settled = msgspec.structs.replace(collected.settled, failure=Failure.LINES, line_errors={1: "no"})
    answers = collected._replace(settled=settled).unsuccessful()
    assert {row: (answer.outcome.value, answer.transient) for row, answer in answers.items()} == {
        0: ("failed", True),
        1: ("failed", False),
    }
