"""Result files that can be read while their batch runs, like Doubleword's (dialect switch `growing-output`).

A growing file is not stored. Its content is read from the batch's journal, in the order in which the answers came in.
Once the batch has ended, it is an ordinary file with the same id and the same lines.

The response header `X-Last-Line` contains the number of lines in the file up to the end of the response. A client
passes that number as `?offset=` to skip these lines and fetch only newer ones.
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


class GrowingFile(NamedTuple):
    """A result file of a running batch. `kind` is `output` or `error`, `lines` the current number of lines."""

    id: str
    live: LiveBatch
    kind: str
    lines: int

    def entries(self, server: Server) -> list[Entry]:
        """Return the journal entries of the file's lines. Reads the whole journal, so it must run in a thread."""
        one_file = "one-file" in server.settings.dialect
        entries = (
            entry
            for entry in self.live.journal.entries()
            if (entry.ending is Ending.SUCCEEDED or one_file) == (self.kind == "output")
        )
        return list(islice(entries, self.lines))

    def file(self, server: Server) -> FileObject:
        """Return the file object that the API shows. Must run in a thread."""
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
        """Return the current content without the first `offset` lines. Must run in a thread.

        :raises FileNotFoundError: the batch has just ended, and the file is now in the store.
        """
        entries = self.entries(server)[offset:]
        journal = open(self.live.journal.path, "rb")  # noqa: SIM115 - closed after the last line is sent
        size = sum(entry.length for entry in entries)
        return _respond(_read_entries(journal, entries), size, last_line=self.lines, complete=False)


def find_growing_file(server: Server, file_id: str) -> GrowingFile | None:
    """Return the growing file with this id, or None if there is none."""
    dialect = server.settings.dialect
    if "growing-output" not in dialect:
        return None
    for live in server.engine.running():
        for kind in ("output", "error"):
            if dialect.result_file_id(live.record.batch.id, kind) == file_id:
                output = len(live.answered_lines) if "one-file" in dialect else live.completed
                return GrowingFile(
                    file_id, live, kind, output if kind == "output" else len(live.answered_lines) - output
                )
    return None


def stored_content(server: Server, file: FileObject, offset: int) -> StreamingResponse:
    """Return a stored file without its first `offset` lines. Must run in a thread."""
    content = open(server.store.path(file.id), "rb")  # noqa: SIM115 - closed after the last line is sent
    skipped = sum(1 for _ in islice(content, offset))
    start = content.tell()
    lines = skipped + sum(1 for _ in content)
    content.seek(start)
    return _respond(_chunks(content), file.bytes - start, last_line=lines, complete=True)


def _respond(content: Iterator[bytes], size: int, *, last_line: int, complete: bool) -> StreamingResponse:
    headers = {
        "Content-Length": str(size),
        "X-Incomplete": "false" if complete else "true",
        "X-Last-Line": str(last_line),
    }
    return StreamingResponse(content, media_type="application/x-ndjson", headers=headers)


def _read_entries(journal: BinaryIO, entries: list[Entry]) -> Iterator[bytes]:
    with journal:
        for entry in entries:
            journal.seek(entry.offset)
            yield journal.read(entry.length)


def _chunks(content: BinaryIO) -> Iterator[bytes]:
    with content:
        while chunk := content.read(_CHUNK):
            yield chunk
