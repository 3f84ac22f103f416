"""Reads the files that a manifest or a retry round names, and checks that they are the ones that were sealed.

The manifest or the record holds the sha256 of each file. A file is hashed before its first byte is used, so that a
changed file neither sends a request nor lands a value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.exceptions import StagingError

Entry = TypeVar("Entry")


@contextmanager
def open_sealed(
    folder: Folder, name: str, sha256: str, consequence: str = "None of its rows was used."
) -> Iterator[BinaryIO]:
    """Open a sealed file for reading, after its checksum was compared.

    :param sha256: the recorded checksum in hex. If it is empty, the job was sealed before its files had one, and the
        file is not checked.
    :param consequence: a sentence that says what was not done with a changed file, for the error.
    :raises StagingError: if the file is missing or was changed.
    """
    with folder.reader(name) as file:
        if sha256:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]
                raise changed_file_error(folder, name, "its checksum differs", consequence)
            file.seek(0)
        yield file


def read_entries(folder: Folder, name: str, sha256: str, entry_type: type[Entry]) -> Iterator[Entry]:
    """Yield the entries of a sealed file, one per line, after its checksum was compared.

    :raises StagingError: if the file is missing, was changed or cannot be decoded.
    """
    with open_sealed(folder, name, sha256) as file:
        yield from decode_entries(folder, name, file, entry_type)


def decode_entries(folder: Folder, name: str, lines: Iterable[bytes], entry_type: type[Entry]) -> Iterator[Entry]:
    """Yield the entry of each line of a sealed file.

    :raises StagingError: if a line cannot be decoded.
    """
    decoder = msgspec.json.Decoder(entry_type)
    for line in lines:
        try:
            entry = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise changed_file_error(folder, name, f"it cannot be decoded ({error})") from error
        yield entry


def changed_file_error(
    folder: Folder, name: str, evidence: str, consequence: str = "None of its rows was used."
) -> StagingError:
    """Return the error for a file that is not the one that was sealed."""
    return StagingError(
        f"{folder.uri}/{name} is not the file that was sealed: {evidence}. {consequence} Restore it if you have a "
        "backup of staging, and clear the task. Without one, start a new run, which reads the warehouse again."
    )
