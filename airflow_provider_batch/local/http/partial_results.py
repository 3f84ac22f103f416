"""Result files that can be read while their batch runs, as Doubleword has them (the switch `growing-output`).

They are not stored: what the batch's journal holds is what they hold, in the order in which the answers came. Once
the batch has ended they are ordinary files with the same ids and lines. `X-Last-Line` counts the lines up to the end
of what is sent, and `?offset=` skips so many, so that a client can ask for what has come since.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

from fastapi.responses import StreamingResponse

from airflow_provider_batch.local.api.objects import FileObject
from airflow_provider_batch.local.engine.live import LiveBatch
from airflow_provider_batch.local.http.server import Server
from airflow_provider_batch.local.storage.journal import Ending, Entry

_CHUNK = 1 << 20


class Growing(NamedTuple):
    """A result file of a batch that runs; `lines` is how many it has now."""

    id: str
    live: LiveBatch
    kind: str
    lines: int

    def entries(self, server: Server) -> list[Entry]:
        """Its lines in the journal. Reads the journal once, so not in the event loop."""
        one_file = "one-file" in server.settings.dialect
        mine = (
            entry
            for entry in self.live.journal.entries()
            if (entry.ending is Ending.SUCCEEDED or one_file) == (self.kind == "output")
        )
        return list(islice(mine, self.lines))

    def file(self, server: Server) -> FileObject:
        """How it is shown."""
        batch = self.live.record.batch
        return FileObject(
            id=self.id,
            bytes=sum(entry.length for entry in self.entries(server)),
            created_at=batch.created_at,
            expires_at=batch.created_at + self.live.record.output_lifetime,
            filename=f"{batch.id}_{self.kind}.jsonl",
            purpose="batch_output",
        )

    def content(self, server: Server, offset: int) -> StreamingResponse:
        """What it holds now, without the first `offset` lines.

        :raises FileNotFoundError: the batch has just ended; the file is stored.
        """
        entries = self.entries(server)[offset:]
        journal = open(self.live.journal.path, "rb")  # noqa: SIM115 - closed when the last line is sent
        size = sum(entry.length for entry in entries)
        return _answer(_of_journal(journal, entries), size, last_line=self.lines, complete=False)


def growing_file(server: Server, file_id: str) -> Growing | None:
    """The growing file with this id, if there is one."""
    dialect = server.settings.dialect
    if "growing-output" not in dialect:
        return None
    for live in server.engine.running():
        for kind in ("output", "error"):
            if dialect.result_file_id(live.record.batch.id, kind) == file_id:
                output = len(live.answered_lines) if "one-file" in dialect else live.completed
                return Growing(file_id, live, kind, output if kind == "output" else len(live.answered_lines) - output)
    return None


def finished_content(server: Server, file: FileObject, offset: int) -> StreamingResponse:
    """A stored file, without the first `offset` lines."""
    content = open(server.store.path(file.id), "rb")  # noqa: SIM115 - closed when the last line is sent
    skipped = sum(1 for _ in islice(content, offset))
    start = content.tell()
    lines = skipped + sum(1 for _ in content)
    content.seek(start)
    return _answer(_chunks(content), file.bytes - start, last_line=lines, complete=True)


def _answer(content: Iterator[bytes], size: int, *, last_line: int, complete: bool) -> StreamingResponse:
    headers = {
        "Content-Length": str(size),
        "X-Incomplete": "false" if complete else "true",
        "X-Last-Line": str(last_line),
    }
    return StreamingResponse(content, media_type="application/x-ndjson", headers=headers)


def _of_journal(journal: BinaryIO, entries: list[Entry]) -> Iterator[bytes]:
    with journal:
        for entry in entries:
            journal.seek(entry.offset)
            yield journal.read(entry.length)


def _chunks(content: BinaryIO) -> Iterator[bytes]:
    with content:
        while chunk := content.read(_CHUNK):
            yield chunk
