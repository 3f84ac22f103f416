"""Transfers of the largest allowed files, several concurrently: complete on arrival, and never complete in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.local.process import LocalServer
from benchmarks.transfers import MAX_EXTRA_MB, measure_transfers

MAX_FILE_BYTES = 200_000_000


@pytest.mark.usefixtures("airflow_home")
def test_concurrent_transfers_of_four_files_need_little_memory_even_if_one_has_the_maximum_size() -> None:
    """Use the real SDK in a separate process. `measure_transfers` compares the sealed files with the downloads."""
    # These files are large, and pytest would keep its tmp_path.
    with TemporaryDirectory() as folder:
        measurements = measure_transfers([MAX_FILE_BYTES, *[20_000_000] * 3], Path(folder))

    assert measurements["upload"].extra_mb < MAX_EXTRA_MB
    assert measurements["download"].extra_mb < MAX_EXTRA_MB


@pytest.mark.usefixtures("offline")
def test_a_file_one_byte_larger_than_the_maximum_is_refused(
    tmp_path: Path, connect: Callable[..., None], batch_server: LocalServer
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    path = tmp_path / "s0001.jsonl"
    path.touch()
    # The file is sparse, which is enough because its size is checked first.
    os.truncate(path, MAX_FILE_BYTES + 1)
    with open(path, "rb") as file, pytest.raises(ProviderError, match="File is too large"):
        BatchHook().upload(file, "s0001.jsonl")
