"""The named dialects as sets of switches, and what a chosen set does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec

from airflow_provider_batch.local.api.objects import Status, new_file_id
from airflow_provider_batch.local.dialects import lines, windows, wire
from airflow_provider_batch.local.dialects.windows import Windows
from airflow_provider_batch.local.dialects.wire import Rewrite, Wire

#: switches that act elsewhere than on the finished JSON
HOOKS = (
    # a batch without failures has a real error file of 0 bytes (Azure)
    "empty-error-file",
    # a batch that failed validation has both result files, of 0 bytes (Azure's sample of a failed batch)
    "failed-with-files",
    # both result files exist from the start and grow while the batch runs, with the headers X-Incomplete and
    # X-Last-Line and the parameter `offset` (Doubleword)
    "growing-output",
    # 410 in place of 404 for a result file that was deleted or has expired (Doubleword)
    "gone",
    # result lines have the order of the input (vLLM)
    "in-order",
    # failures lie in the output file too; there is no error file (vLLM)
    "one-file",
    # lists ignore `after` and begin anew (Groq, whose lists go by `cursor`)
    "ignore-after",
    # the paths /openai/… and /openai/v1/… (Azure; lib/azure.py of the openai SDK)
    "azure-paths",
    # the header api-key in place of a bearer token (Azure; lib/azure.py of the openai SDK)
    "api-key-header",
)


def _name(function: Callable[..., Any]) -> str:
    return function.__name__.replace("_", "-")


_REWRITES = (*wire.BATCH, *wire.CREATED, *wire.FILE, *wire.UPLOADED, *wire.PAGE, *lines.LINE)
#: every switch there is
SWITCHES = frozenset({*map(_name, _REWRITES), *windows.WINDOWS, *HOOKS})

#: name -> its switches
DIALECTS: dict[str, tuple[str, ...]] = {
    "openai": (),
    "azure": (
        "api-key-header",
        "azure-paths",
        "bare-endpoints",
        "empty-error-file",
        "empty-ids",
        "failed-is-completed-at",
        "failed-with-files",
        "never-expires",
        "no-line-ids",
        "null-counts",
    ),
    "dashscope": ("late-expires-at", "windows-24h-to-14d"),
    "doubleword": ("gone", "growing-output", "sparse-lines", "windows-1h-or-24h"),
    "groq": (
        "cursor",
        "errors-list",
        "errors-when-completed",
        "ignore-after",
        "no-finalizing-at",
        "no-has-more",
        "underscore-ids",
        "windows-24h-to-7d",
    ),
    "milliseconds": ("empty-ids", "millisecond-times"),
    "nebius": ("response-is-body",),
    "novita": (
        "empty-ids",
        "errors-text",
        "flat-counts",
        "status-progress",
        "text-created-at",
        "uppercase-status",
        "window-48h",
    ),
    "siliconflow": ("in-queue", "no-counts", "upload-data", "windows-24h-to-14d"),
    "together": ("error-text", "iso-times", "job-fields", "job-wrapper", "progress", "uppercase-status"),
    "vllm": ("in-order", "one-file", "vllm-lines"),
}

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: seconds that never end: 100 years
_FOR_EVER = 100 * 365 * 86_400


def build_dialect(names: Iterable[str]) -> Dialect:
    """The dialect of all these names together, each a dialect or a switch.

    :raises ValueError: a name is neither; the message lists both.
    """
    chosen: set[str] = set()
    for name in names:
        if name not in DIALECTS and name not in SWITCHES:
            raise ValueError(
                f"There is no dialect {name!r}. Dialects: {', '.join(sorted(DIALECTS))}."
                f" Single switches: {', '.join(sorted(SWITCHES))}."
            )
        chosen.update(DIALECTS.get(name, (name,)))
    return Dialect(frozenset(chosen))


@dataclass(frozen=True)
class Dialect:
    """What a set of switches changes. Without switches every method gives back what it got."""

    switches: frozenset[str] = frozenset()

    def __contains__(self, switch: str) -> bool:
        """Whether this switch is on."""
        return switch in self.switches

    def _chosen(self, functions: Iterable[Callable[[Wire], None]]) -> tuple[Callable[[Wire], None], ...]:
        return tuple(function for function in functions if _name(function) in self.switches)

    # answers

    @cached_property
    def _batch(self) -> tuple[Rewrite, ...]:
        return self._chosen(wire.BATCH)

    @cached_property
    def _file(self) -> tuple[Rewrite, ...]:
        return self._chosen(wire.FILE)

    def rewrite_batch(self, batch: Wire) -> Wire:
        """A batch as it is shown."""
        if "growing-output" in self and batch["status"] in _RUNNING:
            batch["output_file_id"] = self.result_file_id(batch["id"], "output")
            batch["error_file_id"] = self.result_file_id(batch["id"], "error")
        return _over(batch, self._batch)

    def create_reply(self, batch: Wire) -> Wire:
        """The reply to create, from a batch as OpenAI shows it."""
        return _over(self.rewrite_batch(batch), self._chosen(wire.CREATED))

    def rewrite_file(self, file: Wire) -> Wire:
        """A file as it is shown."""
        return _over(file, self._file)

    def upload_reply(self, file: Wire) -> Wire:
        """The reply to an upload, from a file as OpenAI shows it."""
        return _over(self.rewrite_file(file), self._chosen(wire.UPLOADED))

    def rewrite_page(self, page: Wire) -> Wire:
        """A list whose items are done already."""
        return _over(page, self._chosen(wire.PAGE))

    # result files

    @cached_property
    def _line(self) -> tuple[Callable[[lines.Line], None], ...]:
        return self._chosen(lines.LINE)

    def rewrite_line(self, line: bytes) -> bytes:
        """A line of a result file, from one of OpenAI's; without its line end."""
        if not self._line:
            return line
        return msgspec.json.encode(_over(msgspec.json.decode(line), self._line))

    def result_file_id(self, batch_id: str, kind: str) -> str:
        """The id of a batch's result file; `kind` is `output` or `error`. One that grows is known beforehand."""
        if "growing-output" not in self:
            return new_file_id()
        number = int.from_bytes(blake2b(f"{batch_id}/{kind}".encode()).digest())
        return "file-" + "".join(_BASE62[number // 62**place % 62] for place in range(22))

    # what a call asks

    @property
    def accepts_azure_requests(self) -> bool:
        """Whether calls come in Azure's way."""
        return "azure-paths" in self or "api-key-header" in self

    def internal_id(self, file_id: str) -> str:
        """The server's own id of a file, from the one that was shown."""
        if "underscore-ids" in self and file_id.startswith("file_"):
            return f"file-{file_id.removeprefix('file_')}"
        return file_id

    def endpoint(self, asked: str) -> str:
        """OpenAI's endpoint, from the one a create asks for."""
        if "bare-endpoints" in self and not asked.startswith("/v1/"):
            return f"/v1{asked}"
        return asked

    def urls(self, endpoint: str) -> frozenset[str]:
        """What the lines of an input file may have as their `url`."""
        return frozenset({endpoint, endpoint.removeprefix("/v1")} if "bare-endpoints" in self else {endpoint})

    def list_start(self, after: str | None, cursor: str | None) -> str | None:
        """After which item a list begins, from its parameters."""
        if cursor is not None and "cursor" in self:
            return cursor
        return None if "ignore-after" in self else after

    @cached_property
    def windows(self) -> Windows:
        """The completion windows that are taken; of several switches the first counts."""
        return next((taken for name, taken in windows.WINDOWS.items() if name in self), windows.OPENAI)

    def window(self, asked: str) -> str | None:
        """The window that a batch gets; None if this one is not taken."""
        hours = windows.hours_of(asked)
        if hours not in self.windows.hours or (self.windows is windows.OPENAI and asked != "24h"):
            return None
        return asked if self.windows.always is None else f"{self.windows.always}h"

    def lifetime(self, window: str, day: int) -> int:
        """Seconds until a batch with this window expires, where 24 hours are `day` seconds."""
        return _FOR_EVER if "never-expires" in self else (windows.hours_of(window) or 24) * day // 24


OPENAI = Dialect()
_RUNNING = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


def _over(wire_object: Wire, functions: Iterable[Callable[[Wire], None]]) -> Wire:
    for function in functions:
        function(wire_object)
    return wire_object
