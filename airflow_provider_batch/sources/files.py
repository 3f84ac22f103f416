"""Rows from files on object storage or a mounted disk: NDJSON, CSV and Parquet, in bounded memory.

An address is a path or URL that Airflow's `ObjectStoragePath` understands, so it can name a connection, as in
`s3://aws_default@bucket/tickets.jsonl`. It may also be a pattern such as `s3://bucket/2026-*/*.csv`, or a folder.
"""

from __future__ import annotations

import csv
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from lzma import LZMAError
from types import TracebackType
from typing import Any, Self

import msgspec
from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath
from fsspec.compression import compr
from fsspec.utils import infer_compression

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.core.schema.native import parse_json
from airflow_provider_batch.exceptions import FileStoreError, InputError
from airflow_provider_batch.sources.parquet import open_parquet
from airflow_provider_batch.sources.parts import Part, Parts
from airflow_provider_batch.sources.plain import missing_if_nan
from airflow_provider_batch.sources.source import RowSource, Source, check_columns

#: endings of files, with their formats
_FORMATS = {
    ".jsonl": "NDJSON",
    ".ndjson": "NDJSON",
    ".json": "NDJSON",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
    ".pq": "Parquet",
}
#: endings of files that people may take for readable. Other unknown endings may belong to a folder, such as /data/v1.2
_FOREIGN_ENDINGS = frozenset({".xlsx", ".xls", ".ods", ".avro", ".orc", ".feather", ".arrow", ".xml"})
#: maximum length of a value of a CSV file, in characters
MAX_FIELD = 64 << 20


def _ending_of(address: str) -> str:
    """Return the ending of a file's name in lower case, without that of a compression."""
    name = address.lower()
    if infer_compression(name):
        name = name.rpartition(".")[0]
    return os.path.splitext(f"x{name.rpartition('/')[2]}")[1]


class File:
    """A file on object storage or a disk."""

    def __init__(self, filesystem: Any, path: str, address: str) -> None:
        """Store the arguments.

        :param path: as the filesystem spells it.
        :param address: as people know it, for errors.
        """
        self.filesystem, self.path, self.address = filesystem, path, address

    @property
    def format(self) -> str | None:
        """Format of the file, according to its ending; None if it is not one of ours."""
        return _FORMATS.get(self.ending)

    @property
    def ending(self) -> str:
        """Ending of the file's name, without that of a compression."""
        return _ending_of(self.path)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the file for reading, uncompressed."""
        with reading(self.address), ExitStack() as stack:
            file = stack.enter_context(self.filesystem.open(self.path, "rb"))
            compression = infer_compression(self.path.lower())
            if compression:
                if compression == "zip":
                    raise InputError(
                        f"rows: {self.address} is a ZIP archive, which may contain several files. Unpack it, or "
                        "compress each of its files with gzip. Nothing was uploaded."
                    )
                if compression not in compr:
                    raise InputError(
                        f"rows: {self.address} is compressed with {compression}, and the package that reads it is not "
                        "installed. Nothing was uploaded."
                    )
                file = stack.enter_context(compr[compression](file, mode="rb"))
            yield file


@contextmanager
def reading(address: str) -> Iterator[None]:
    """Name the file in errors of its storage.

    :raises InputError: if it does not exist.
    :raises FileStoreError: for all other errors. A retry may help.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"rows: There is no file {address}. Nothing was uploaded.") from error
    except (OSError, EOFError, zlib.error, LZMAError) as error:
        raise _store_error(address, error) from error


def _store_error(address: str, error: Exception) -> FileStoreError:
    return FileStoreError(
        f"rows: Cannot read {address}: {type(error).__name__}: {str(error).rstrip('.')}. Nothing was uploaded."
    )


class Files(Source):
    """Rows of the files at some addresses, in the order of the addresses, and of the names within each of them."""

    def __init__(self, addresses: Sequence[str | os.PathLike[str]]) -> None:
        super().__init__()
        self._addresses = addresses
        self._rows: RowSource = Source()

    def __enter__(self) -> Self:
        files = [file for address in self._addresses for file in find_files(str(address))]
        self._rows = _open_files(files)
        self.columns = self._rows.__enter__().columns
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)


def check_address(address: str) -> None:
    """Raise InputError if an address is neither an absolute path nor a URL, or names a file of a foreign format.

    A relative path would be looked up in the working directory of the worker, which no author of a DAG knows.
    """
    if "://" in address or os.path.isabs(address):
        ending = _ending_of(address)
        if ending in _FOREIGN_ENDINGS:
            raise InputError(
                f"rows: Files that end in {ending} cannot be read, as in {shorten(address)}. Convert them to NDJSON, "
                "CSV or Parquet, or read them in a task that returns their rows. Nothing was uploaded."
            )
        return
    if address.lstrip().startswith(("[", "{")):
        raise InputError(
            f"rows: Got the text of a value instead of the value, {shorten(address)}. Pass the output of the task, as "
            "in rows=load(), or set render_template_as_native_obj=True of the DAG. Nothing was uploaded."
        )
    raise InputError(
        f"rows: Text must be the address of files, which is an absolute path such as '/data/tickets.jsonl' or a URL "
        f"such as 's3://bucket/tickets.jsonl', but got {shorten(address)}. Nothing was uploaded."
    )


def find_files(address: str) -> list[File]:
    """Return the files at an address: a file, all files that match a pattern, or all files in a folder.

    Hidden files, whose names begin with a dot or an underscore, are left out, unless the address names one of them.

    :raises InputError: if there are none, or if Airflow cannot open addresses of this kind.
    :raises FileStoreError: if the store does not say whether there are any. A retry may help.
    """
    try:
        path = ObjectStoragePath(address)
        filesystem = path.fs
    except (ValueError, ImportError) as error:
        raise InputError(
            f"rows: This Airflow installation cannot open {address!r}: {error}. Install the provider of its object "
            "store, such as apache-airflow-providers-amazon[s3fs] for s3://. Nothing was uploaded."
        ) from error
    except AirflowException as error:  # such as a connection that does not exist
        raise InputError(f"rows: Cannot open {address!r}: {error}. Nothing was uploaded.") from error

    def file_at(name: str) -> File:
        return File(filesystem, name, filesystem.unstrip_protocol(name))

    try:
        filesystem.invalidate_cache()
        type_ = _type_of(filesystem, path.path)
        if type_ == "file":
            return [File(filesystem, path.path, address)]
        if type_ == "directory":
            folder = path.path.rstrip("/")
            names = [name for name in filesystem.find(folder) if not _is_hidden(name, below=folder)]
        else:
            entries = filesystem.glob(path.path, detail=True) if _is_pattern(address) else {}
            names = [name for name, entry in entries.items() if entry["type"] == "file" and not _is_hidden(name)]
    except Exception as error:  # each store has errors of its own
        raise _store_error(address, error) from error
    if not names:
        kind = "No file matches" if _is_pattern(address) else "There is no file in" if address.endswith("/") else None
        raise InputError(f"rows: {kind or 'There is no file'} {address}. Nothing was uploaded.")
    return [file_at(name) for name in sorted(names)]


def _type_of(filesystem: Any, path: str) -> str | None:
    """Return "file", "directory", or None if there is neither.

    `isfile` and `isdir` would say no for a store that does not answer or refuses access.
    """
    try:
        return str(filesystem.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_pattern(address: str) -> bool:
    return any(character in address for character in "*?[")


def _is_hidden(name: str, below: str | None = None) -> bool:
    folders = name[len(below) :].split("/") if below is not None else name.split("/")[-1:]
    return any(folder.startswith((".", "_")) for folder in folders)


def _open_files(files: Sequence[File]) -> RowSource:
    for file in files:
        if file.format is None:
            raise InputError(
                f"rows: {file.address} is neither NDJSON ({', '.join(_endings('NDJSON'))}), CSV "
                f"({', '.join(_endings('CSV'))}) nor Parquet ({', '.join(_endings('Parquet'))}), according to its "
                "ending. Name only such files, for example with a pattern. Nothing was uploaded."
            )
        if file.format != files[0].format:
            raise InputError(
                f"rows: {file.address} is {file.format}, but {files[0].address} is {files[0].format}. All files must "
                "have the same format. Nothing was uploaded."
            )
    if files[0].format == "NDJSON":
        return NdjsonRows(files)
    openers: dict[str, Callable[[File], RowSource]] = {"CSV": CsvRows, "Parquet": _open_parquet_file}
    open_file = openers[files[0].format or ""]
    parts: list[Part] = [(file.address, partial(open_file, file)) for file in files]
    return Parts(parts)


def _endings(format_: str) -> list[str]:
    return [ending for ending, other in _FORMATS.items() if other == format_]


def _open_parquet_file(file: File) -> RowSource:
    return open_parquet(file.filesystem, file.path, file.address, partial(reading, file.address))


class NdjsonRows(Source):
    """Rows of files with one JSON object per line.

    The files are read twice: the columns are the keys of all objects. An object without a key has None there.
    """

    def __init__(self, files: Sequence[File]) -> None:
        super().__init__()
        self._files = files

    def __enter__(self) -> NdjsonRows:
        names: dict[str, None] = {}
        for file in self._files:
            for record in _records_of(file, _decode_keys):
                if not record.keys() <= names.keys():
                    names.update(dict.fromkeys(record))
        place = self._files[0].address if len(self._files) == 1 else "the files"
        self.columns = check_columns(list(names), place)
        return self

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        columns = self.columns
        for file in self._files:
            for record in _records_of(file, parse_json):
                yield tuple(missing_if_nan(record.get(name)) for name in columns)


def _decode_keys(line: Any) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:  # NaN, which Python writes
        return parse_json(line)


def _records_of(file: File, decode: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
    with file.open() as opened:
        for number, line in enumerate(opened, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not text:
                continue
            try:
                record = decode(text)
            except (ValueError, RecursionError) as error:
                raise _line_error(file, number, text, error) from None
            if not isinstance(record, dict):
                raise _line_error(file, number, text, None)
            if not record:
                raise InputError(f"rows: Line {number} of {file.address} is empty: {{}}. Nothing was uploaded.")
            yield record


def _line_error(file: File, number: int, text: bytes, error: Exception | None) -> InputError:
    if isinstance(error, UnicodeDecodeError):
        problem = "is not UTF-8"
    elif error is None or (number == 1 and text in (b"[", b"{")):
        problem = "is not an object. If the whole file is one JSON document, convert it, as in: jq -c '.[]' FILE"
    else:
        # the message of a decoder does not quote the value
        problem = f"is not JSON: {error}"
    return InputError(
        f"rows: Line {number} of {file.address} {problem}. Each line must be one JSON object. Nothing was uploaded."
    )


class CsvRows(Source):
    """Rows of a CSV file whose first line names the columns. Every value is text, so that 007 stays 007.

    Values are separated by commas, or, if the first line has none, by semicolons or tabs.
    """

    def __init__(self, file: File) -> None:
        super().__init__()
        self._file = file
        self._stack = ExitStack()
        self._reader: Any = iter(())

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            text = io.TextIOWrapper(stack.enter_context(self._file.open()), encoding="utf-8-sig", newline="")
            stack.callback(text.detach)
            csv.field_size_limit(MAX_FIELD)
            lines = iter(text)
            header = next(self._checked(lines), "")
            self._reader = csv.reader(chain([header], lines), delimiter=_delimiter(header, self._file), strict=True)
            names: list[str] = next(self._checked(self._reader), [])
            if any(names):
                self.columns = check_columns([name.strip() for name in names], self._file.address)
            elif any(map(any, self._checked(self._reader))):
                raise InputError(
                    f"rows: The first line of {self._file.address} is empty, but must name the columns of the lines "
                    "that follow. Remove it, or write the names into it. Nothing was uploaded."
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        width = len(self.columns)
        for values in self._checked(self._reader):
            if len(values) == width:
                yield tuple(values)
            elif values:
                raise InputError(
                    f"rows: Line {self._reader.line_num} of {self._file.address} has {len(values)} values, but the "
                    f"first line names {width} columns. Nothing was uploaded."
                )

    def _checked(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield the items, and name the file in errors."""
        address = self._file.address
        while True:
            try:
                with reading(address):
                    item = next(items)
            except StopIteration:
                return
            except UnicodeDecodeError:
                raise InputError(f"rows: {address} is not UTF-8. Save it as UTF-8. Nothing was uploaded.") from None
            except csv.Error as error:
                line = getattr(items, "line_num", 0)
                raise InputError(
                    f"rows: {address} is not valid CSV near line {line}: {error}. Nothing was uploaded."
                ) from None
            yield item


def _delimiter(header: str, file: File) -> str:
    if file.ending == ".tsv":
        return "\t"
    return next((character for character in ",;\t" if character in header), ",")
