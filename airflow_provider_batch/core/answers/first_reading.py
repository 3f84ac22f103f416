"""The first reading of the collected files of a submission, which parses each line once.

It says what the worker must know before it settles the submission: the outcome and the usage of every row, what the
files consist of, and which rows did not succeed. The memory depends on the number of rows, not on their answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_batch.core.answers.agreement import Lines
from airflow_provider_batch.core.answers.outcome import MISSING, Answer, Outcome
from airflow_provider_batch.core.answers.result_files import row_reader, verified_lines
from airflow_provider_batch.core.answers.tolerant_json import parse
from airflow_provider_batch.core.answers.unsuccessful import UnsuccessfulRow, without_texts
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.schema.judge import SchemaJudge


class FirstReading:
    """An iterator of one answer per row, with the row's line in the input file (from 0).

    Only answers that succeeded have their texts. Iterate once and to the end. After that, `lines` and `unsuccessful`
    are complete.
    """

    def __init__(
        self, folder: Folder, settled: Settled, rows: list[RowIndex], endpoint: str, judge: SchemaJudge | None
    ) -> None:
        self._folder, self._settled = folder, settled
        self._read, self._requests = row_reader(rows, endpoint, judge, bodies=False), len(rows)
        #: the lines of the files
        self.lines = Lines(0)
        #: the rows that did not succeed, by their line in the input file
        self.unsuccessful: dict[int, UnsuccessfulRow] = {}

    def __iter__(self) -> Iterator[tuple[int, Answer]]:
        """Yield the answers.

        :raises StagingError: at the end of a file that differs from the one that was collected.
        """
        read, unsuccessful = self._read, self.unsuccessful
        open_lines = set(range(self._requests))
        answers = broken = foreign = 0
        for number, file in enumerate(self._settled.files):
            for text_line, text in enumerate(verified_lines(self._folder, file, self._settled)):
                result = read(text)
                if result is None:
                    is_broken = text.lstrip().startswith(b"{") and parse(text) is None
                    broken += is_broken
                    foreign += not is_broken and bool(text.strip())
                    continue
                answers += 1
                line, answer = result
                if line not in open_lines:
                    continue
                if answer.outcome is Outcome.SUCCEEDED:
                    open_lines.remove(line)
                    unsuccessful.pop(line, None)
                    yield line, answer
                elif line not in unsuccessful or answer.outcome.rank > unsuccessful[line].answer.outcome.rank:
                    unsuccessful[line] = UnsuccessfulRow(line, without_texts(answer), number, text_line)
        missing = open_lines - unsuccessful.keys()
        rows = self._requests - len(missing)
        self.lines = Lines(rows, answers - rows, broken, foreign)
        for line in missing:
            unsuccessful[line] = UnsuccessfulRow(line, without_texts(MISSING))
        for line, row in unsuccessful.items():
            yield line, row.answer
