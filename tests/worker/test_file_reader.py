"""Reading the files of rows ahead: in order, several at a time, and never too many of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from airflow_provider_batch.core.requests.file_paths import Location, UnusableFileError
from airflow_provider_batch.exceptions import FileStoreError
from airflow_provider_batch.worker import file_reader
from airflow_provider_batch.worker.file_reader import FileReader


class Store(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An object store that calls `on_open` for each file that is opened."""

    cachable = False

    def __init__(self, on_open: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.on_open = on_open
        self.opened: list[str] = []

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.opened.append(path)
        self.on_open()
        return super()._open(path, *args, **kwargs)


def attach_store(contents: dict[str, bytes], on_open: Callable[[], object] = lambda: None) -> tuple[Store, str]:
    """Attach a store with these files, and return it with the name of its bucket."""
    bucket = f"b{uuid4().hex[:8]}"
    store = Store(on_open)
    for name, content in contents.items():
        store.store[f"/{bucket}/{name}"] = MemoryFile(store, f"/{bucket}/{name}", content)
    attach("memory", conn_id=bucket, fs=store)
    return store, bucket


def location(bucket: str, name: str) -> Location:
    return Location("memory", bucket, bucket, name)


def read_all(bucket: str, names: list[str]) -> list[bytes]:
    with FileReader() as files:
        rows = files.read_ahead([(name,) for name in names], lambda row: [location(bucket, row[0])])
        return [files.read(location(bucket, name)) for (name,) in rows]


def test_files_are_read_several_at_a_time_and_returned_in_order() -> None:
    names = [f"{number}.png" for number in range(50)]
    barrier = threading.Barrier(8)
    opened = iter(range(10**6))
    # The first file is read alone. The next ones wait for each other, so that reading one by one would never end.
    _, bucket = attach_store(
        {name: name.encode() for name in names},
        on_open=lambda: barrier.wait(60) if 0 < next(opened) <= 48 else None,
    )

    assert read_all(bucket, names) == [name.encode() for name in names]


def test_a_file_that_neighbouring_rows_share_is_read_once() -> None:
    store, bucket = attach_store({"a": b"1"})
    assert read_all(bucket, ["a"] * 10) == [b"1"] * 10
    assert len(store.opened) == 2  # the first row is read alone


def test_the_files_that_wait_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "MAX_WAITING_BYTES", 3_000)
    names = [str(number) for number in range(40)]
    store, bucket = attach_store({name: bytes(1_000) for name in names})
    with FileReader() as files:
        rows = files.read_ahead([(name,) for name in names], lambda row: [location(bucket, row[0])])
        for count, (name,) in enumerate(rows, start=1):
            files.read(location(bucket, name))
            assert len(store.opened) <= count + 3


def test_rows_without_files_are_not_held_back() -> None:
    with FileReader() as files:
        assert list(files.read_ahead([(1,), (2,)], lambda row: [])) == [(1,), (2,)]


def test_an_error_of_the_rows_is_raised() -> None:
    def rows() -> Any:
        yield (1,)
        raise ValueError("lost connection")

    with FileReader() as files, pytest.raises(ValueError, match="lost connection"):
        list(files.read_ahead(rows(), lambda row: []))


def test_a_scheme_without_a_filesystem_is_an_error_of_the_task() -> None:
    with FileReader() as files, pytest.raises(FileStoreError, match=r"no filesystem for it.*Install the provider"):
        files.read(Location("nosuch", "", "bucket", "a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_nobody_may_read_costs_its_row(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "a").chmod(0)
    with FileReader() as files, pytest.raises(UnusableFileError, match="permission denied"):
        files.read(Location("file", "", "", f"{tmp_path}/a", f"{tmp_path}/"))


def test_a_pipe_does_not_hang_the_task(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with FileReader() as files, pytest.raises(UnusableFileError, match="it is a device or a pipe"):
        files.read(Location("file", "", "", f"{tmp_path}/pipe", f"{tmp_path}/"))


def test_a_name_that_no_disk_can_hold_is_a_missing_file(tmp_path: Path) -> None:
    with FileReader() as files, pytest.raises(UnusableFileError, match="There is no file"):
        files.read(Location("file", "", "", f"{tmp_path}/{'a' * 5_000}", f"{tmp_path}/"))
