"""Downloaded result files are believed only if they agree with what the provider says about them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.agreement import (
    Agreement,
    Lines,
    are_believed,
    compare_with_counts,
    compare_with_sizes,
    describe_disagreement,
)
from airflow_provider_batch.core.ledger.records import CollectedFile
from airflow_provider_batch.core.provider.batch import BatchView, read_batch

CONFIRMED, CONTRADICTED, UNKNOWN = Agreement.CONFIRMED, Agreement.CONTRADICTED, Agreement.UNKNOWN


def batch_of(status: str = "completed", counts: Any = None, output: str = "file-out", error: str = "") -> BatchView:
    return read_batch(
        {"id": "batch_1", "status": status, "output_file_id": output, "error_file_id": error, "request_counts": counts}
    )


def counts_of(total: int, completed: int, failed: int) -> dict[str, int]:
    return {"total": total, "completed": completed, "failed": failed}


def file_of(size: int, file_id: str = "file-out") -> CollectedFile:
    return CollectedFile(f"collected/{file_id}", size, "0", file_id)


# request_counts


@pytest.mark.parametrize(
    ("status", "counts", "rows", "agreement"),
    [
        ("completed", counts_of(10, 10, 0), 10, CONFIRMED),
        ("completed", counts_of(10, 7, 3), 10, CONFIRMED),
        ("completed", counts_of(10, 7, 3), 9, CONTRADICTED),
        ("completed", counts_of(10, 10, 0), 0, CONTRADICTED),
        # more requests than the shard has
        ("completed", counts_of(15, 15, 0), 10, CONFIRMED),
        # the server lost five rows of the input
        ("completed", counts_of(5, 5, 0), 5, CONFIRMED),
        # counts of an earlier time
        ("completed", counts_of(10, 3, 0), 5, UNKNOWN),
        ("completed", counts_of(10, 3, 0), 2, CONTRADICTED),
        # the lines of requests that never ran are not counted
        ("expired", counts_of(10, 1, 0), 10, CONFIRMED),
        ("expired", counts_of(10, 1, 0), 1, CONFIRMED),
        ("expired", counts_of(10, 4, 1), 4, CONTRADICTED),
        ("cancelled", counts_of(10, 4, 0), 0, CONTRADICTED),
        # no counts
        ("completed", None, 10, UNKNOWN),
        ("completed", None, 0, UNKNOWN),
        ("completed", counts_of(10, 0, 0), 10, UNKNOWN),
        ("expired", counts_of(10, 0, 0), 3, UNKNOWN),
    ],
)
def test_files_agree_with_the_counts_if_as_many_rows_have_a_line(
    status: str, counts: Any, rows: int, agreement: Agreement
) -> None:
    assert compare_with_counts(batch_of(status, counts), rows, 10) is agreement


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_batch_that_ran_nothing_and_has_no_output_needs_no_line(status: str) -> None:
    assert compare_with_counts(batch_of(status, counts_of(10, 0, 0), output=""), 0, 10) is CONFIRMED


def test_a_completed_batch_without_counts_and_files_is_not_confirmed() -> None:
    assert compare_with_counts(batch_of("completed", counts_of(10, 0, 0), output=""), 0, 10) is UNKNOWN


# bytes


@pytest.mark.parametrize(
    ("files", "sizes", "agreement"),
    [
        ([file_of(500)], [500], CONFIRMED),
        ([file_of(500)], [499], CONTRADICTED),
        ([file_of(500), file_of(80, "file-err")], [500, 80], CONFIRMED),
        ([file_of(500), file_of(79, "file-err")], [500, 80], CONTRADICTED),
        ([file_of(500), file_of(80, "file-err")], [500, None], UNKNOWN),
        # Azure's error file of zero bytes
        ([file_of(500), file_of(0, "file-err")], [500, 0], CONFIRMED),
        # servers that state no size, or 0 for every file
        ([file_of(500), file_of(80, "file-err")], [500, 0], UNKNOWN),
        ([file_of(500)], [None], UNKNOWN),
        ([file_of(500)], [0], UNKNOWN),
        ([file_of(0)], [0], CONFIRMED),
        ([file_of(0)], [None], UNKNOWN),
        ([file_of(0)], [500], CONTRADICTED),
        ([], [], UNKNOWN),
    ],
)
def test_files_agree_with_their_sizes_if_all_of_them_are_complete(
    files: list[CollectedFile], sizes: list[int | None], agreement: Agreement
) -> None:
    assert compare_with_sizes(batch_of(), files, sizes) is agreement


def test_an_error_file_of_the_right_size_does_not_make_up_for_an_output_file_that_is_not_named() -> None:
    batch = batch_of(counts=counts_of(10, 8, 2), output="", error="file-err")
    assert compare_with_sizes(batch, [file_of(80, "file-err")], [80]) is UNKNOWN


# the decision


def believes(
    counts: Agreement,
    sizes: Agreement,
    lines: Lines | int,
    *,
    status: str = "completed",
    repeated: bool = False,
    accepted: bool = False,
) -> bool:
    """Return whether files are believed in which these lines are instead of ten."""
    return are_believed(
        batch_of(status, counts_of(10, 10, 0)),
        counts,
        sizes,
        lines if isinstance(lines, Lines) else Lines(lines),
        10,
        is_repeated=repeated,
        is_accepted=accepted,
    )


@pytest.mark.parametrize("other", list(Agreement))
def test_one_figure_that_agrees_is_enough(other: Agreement) -> None:
    assert believes(CONFIRMED, other, 0)
    assert believes(other, CONFIRMED, 1)


@pytest.mark.parametrize("counts", [CONTRADICTED, UNKNOWN])
@pytest.mark.parametrize(
    "lines", [Lines(0), Lines(5, repeated=5), Lines(0, broken=10), Lines(2, foreign=30), Lines(8, foreign=1)]
)
def test_suspicious_files_of_the_right_size_need_a_person(counts: Agreement, lines: Lines) -> None:
    """They have no line for any row, or something else in place of some lines."""
    assert not believes(counts, CONFIRMED, lines)
    assert not believes(counts, CONFIRMED, lines, repeated=True)
    assert believes(counts, CONFIRMED, lines, repeated=True, accepted=True)


@pytest.mark.parametrize(
    "lines", [Lines(9), Lines(9, broken=1), Lines(9, repeated=1, broken=1), Lines(8), Lines(8, broken=1, foreign=1)]
)
def test_a_line_that_is_lost_or_broken_at_the_provider_does_not_make_a_file_of_the_right_size_suspicious(
    lines: Lines,
) -> None:
    assert believes(CONTRADICTED, CONFIRMED, lines)


@pytest.mark.parametrize("counts", [CONTRADICTED, UNKNOWN])
def test_files_of_the_wrong_size_are_never_believed(counts: Agreement) -> None:
    assert not believes(counts, CONTRADICTED, 9, repeated=True, accepted=True)


def test_files_that_contradict_only_the_counts_need_a_person() -> None:
    assert not believes(CONTRADICTED, UNKNOWN, 9, repeated=True)
    assert not believes(CONTRADICTED, UNKNOWN, 9, accepted=True)
    assert believes(CONTRADICTED, UNKNOWN, 9, repeated=True, accepted=True)
    assert not believes(CONTRADICTED, UNKNOWN, 0, repeated=True, accepted=True)


def test_without_any_figure_a_line_for_every_row_is_believed() -> None:
    assert believes(UNKNOWN, UNKNOWN, 10)


def test_without_any_figure_some_rows_of_a_completed_batch_need_a_person() -> None:
    assert not believes(UNKNOWN, UNKNOWN, 9)
    assert not believes(UNKNOWN, UNKNOWN, 9, repeated=True)
    assert believes(UNKNOWN, UNKNOWN, 9, repeated=True, accepted=True)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_without_any_figure_some_rows_of_a_batch_that_did_not_complete_need_a_second_download(status: str) -> None:
    assert not believes(UNKNOWN, UNKNOWN, 9, status=status)
    assert believes(UNKNOWN, UNKNOWN, 9, status=status, repeated=True)


def test_without_any_figure_files_without_a_line_are_never_believed() -> None:
    assert not believes(UNKNOWN, UNKNOWN, 0, repeated=True, accepted=True)


@given(
    status=st.sampled_from(["completed", "expired", "cancelled", "failed"]),
    total=st.integers(0, 12),
    completed=st.integers(0, 12),
    failed=st.integers(0, 12),
    rows=st.integers(0, 10),
    size=st.integers(0, 3),
    stated=st.none() | st.integers(0, 3),
    repeated=st.booleans(),
)
def test_an_answer_that_the_provider_counts_is_never_given_up_unless_the_size_of_its_file_is_right(
    status: str, total: int, completed: int, failed: int, rows: int, size: int, stated: int | None, repeated: bool
) -> None:
    batch = batch_of(status, counts_of(total, completed, failed))
    counts, sizes = compare_with_counts(batch, rows, 10), compare_with_sizes(batch, [file_of(size)], [stated])
    if are_believed(batch, counts, sizes, Lines(rows), 10, is_repeated=repeated, is_accepted=False):
        assert rows >= min(completed + failed, 10) or (rows and size == stated)


def test_the_description_names_the_batch_the_counts_the_files_and_the_lines() -> None:
    batch = batch_of(counts=counts_of(10, 9, 1), error="file-err")
    files = [file_of(1_234), file_of(80, "file-err")]
    assert describe_disagreement(batch, files, [50_000, None], 1, 10) == (
        "Batch batch_1 is completed and reports 9 completed requests and 1 failed, but its result files file-out "
        "(1,234 bytes instead of 50,000) and file-err (80 bytes) have a line for 1 row of the shard."
    )
    assert describe_disagreement(batch_of(output=""), [], [], 0, 10) == (
        "Batch batch_1 is completed and gives no counts for its 10 requests, but it names no result file, so there is "
        "no line for any row of the shard."
    )
