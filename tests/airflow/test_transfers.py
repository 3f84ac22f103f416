"""The largest files there are, several at once: whole on the other side, and never whole in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.local.process import LocalServer
from benchmarks.transfers import MOST_MB, transferred

LARGEST = 200_000_000


@pytest.mark.usefixtures("airflow_home")
def test_four_files_at_once_one_of_them_the_largest_there_is_go_up_and_down_in_little_memory() -> None:
    """Through the real SDK, in processes of their own. `transferred` checks what was sealed and what came back."""
    # Not pytest's folder, which it keeps: these files are large.
    with TemporaryDirectory() as folder:
        took = transferred([LARGEST, *[20_000_000] * 3], Path(folder))

    assert took["up"] < MOST_MB
    assert took["down"] < MOST_MB


@pytest.mark.usefixtures("offline")
def test_a_byte_more_than_the_largest_file_is_refused(
    tmp_path: Path, connect: Callable[..., None], batch_server: LocalServer
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    path = tmp_path / "s0001.jsonl"
    path.touch()
    # sparse: its size is looked at first
    os.truncate(path, LARGEST + 1)
    with open(path, "rb") as file, pytest.raises(ProviderError, match="File is too large"):
        BatchHook().upload(file, "s0001.jsonl")
