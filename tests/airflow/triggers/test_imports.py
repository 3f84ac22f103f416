"""The import of the client in a triggerer leaves the garbage collector as it was, and is done once."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, gc, sys
from airflow_provider_batch.triggers.batch import BatchTrigger
from airflow_provider_batch.triggers.imports import import_in_thread
assert "openai" not in sys.modules, "imported in the event loop"
collections = []
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]))
async def main():
    modules = await asyncio.gather(*(import_in_thread("airflow_provider_batch.triggers.poller") for _ in range(20)))
    assert len(set(map(id, modules))) == 1
asyncio.run(main())
during_import, collections[:] = list(collections), []
assert {"openai.resources.batches", "httpcore2", "anyio._backends._asyncio"} <= sys.modules.keys()
assert gc.isenabled() and gc.get_freeze_count() == 0
gc.collect()
assert 2 in collections
print("full collections during the import:", during_import.count(2))
"""


def test_the_client_is_imported_once_and_without_a_full_garbage_collection() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "full collections during the import: 0" in result.stdout
