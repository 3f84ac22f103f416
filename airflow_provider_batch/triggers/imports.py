"""Imports the OpenAI SDK in a triggerer without blocking its event loop.

The import takes over half a second, so it runs in a thread. That alone is not enough: the import creates so many
objects that Python's garbage collector looks at every object of the process several times, and each time it stops all
threads, the event loop included, for some tenths of a second.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType

#: modules that the first request of a client would import in the event loop
_LAZY_MODULES = ("httpcore2", "openai.resources.batches")


#: modules that were imported here, by name
_modules: dict[str, ModuleType] = {}
_lock = Lock()


async def import_in_thread(name: str) -> ModuleType:
    """Import a module that uses the OpenAI SDK, and all that its first request needs."""
    if name in _modules:
        return _modules[name]
    return await asyncio.to_thread(_import, name)


def _import(name: str) -> ModuleType:
    with _lock:
        if name not in _modules:
            with _paused_collection():
                module = importlib.import_module(name)
                for lazy_module in _LAZY_MODULES:
                    importlib.import_module(lazy_module)
                asyncio.run(_import_backend())
            _modules[name] = module
    return _modules[name]


async def _import_backend() -> None:
    """Create an event, for which anyio imports what it needs for asyncio."""
    import anyio

    anyio.Event()


@contextmanager
def _paused_collection() -> Iterator[None]:
    """Pause the garbage collector. Afterwards, count all objects as old, as if it had looked at them."""
    gc.disable()
    try:
        yield
    finally:
        # together, these two move all objects to the oldest generation
        gc.freeze()
        gc.unfreeze()
        gc.enable()
