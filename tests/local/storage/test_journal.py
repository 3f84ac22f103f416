"""The journal keeps every appended answer, even if its last line is incomplete."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.local.api.tokens import Tokens
from airflow_provider_batch.local.storage.journal import Ending, Journal

_ANSWERS = [
    (3, Ending.SUCCEEDED, Tokens(10, 1, 5, 2), b'{"custom_id":"a","text":"one\\ttwo"}'),
    (1, Ending.FAILED, Tokens(), b'{"custom_id":"b"}'),
    (2, Ending.NEVER_RAN, Tokens(), '{"custom_id":"ü\u2028"}'.encode()),
]


def _write_journal(path: Path) -> Journal:
    journal = Journal(path)
    for answer in _ANSWERS:
        journal.append(*answer)
    return journal


def test_entries_describe_each_answer_and_locate_its_line(tmp_path: Path) -> None:
    journal = _write_journal(tmp_path / "answers")
    content = journal.path.read_bytes()

    entries = list(journal.entries())
    assert [(entry.line, entry.ending, entry.tokens) for entry in entries] == [answer[:3] for answer in _ANSWERS]
    for entry, (*_, result) in zip(entries, _ANSWERS, strict=True):
        assert content[entry.offset : entry.offset + entry.length] == result + b"\n"
    journal.close()


@settings(max_examples=30)
@given(length=st.integers(0, 200))
def test_an_incomplete_last_line_is_removed_and_appending_continues(
    length: int,
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "answers"
        _write_journal(path).close()
        content = path.read_bytes()[:length]
        path.write_bytes(content)

        journal = Journal(path)
        assert [entry.line for entry in journal.entries()] == [3, 1, 2][: content.count(b"\n")]
        journal.append(9, Ending.SUCCEEDED, Tokens(), b"{}")
        assert [entry.line for entry in journal.entries()][-1] == 9
        journal.close()


def test_tokens_add_up() -> None:
    assert Tokens(1, 2, 3, 4).plus(Tokens(10, 20, 30, 40)) == Tokens(11, 22, 33, 44)
