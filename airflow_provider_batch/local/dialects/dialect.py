"""The named dialects as sets of switches, and the effect of a set of switches on the server."""

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

#: switches that act elsewhere in the server, not on the finished JSON
HOOKS = (
    # a batch without failures has an error file of 0 bytes (Azure)
    "empty-error-file",
    # a batch that failed validation has both result files, of 0 bytes (Azure's sample of a failed batch)
    "failed-with-files",
    # both result files exist from the start and grow while the batch runs, with the headers X-Incomplete and
    # X-Last-Line and the parameter `offset` (Doubleword)
    "growing-output",
    # a result file that was deleted or has expired gives 410 instead of 404 (Doubleword)
    "gone",
    # result lines are in the order of the input (vLLM)
    "in-order",
    # the output file contains the failures too; there is no error file (vLLM)
    "one-file",
    # lists ignore `after` and always return the first page (Groq, whose lists page with `cursor`)
    "ignore-after",
    # U+2028, U+2029 and U+0085 end the lines of input files too, so a line that contains one fails validation (llmock)
    "unicode-line-ends",
    # lines of input files that are not JSON are skipped without an error, so their rows have no result (our choice)
    "skip-broken-lines",
    # error messages repeat the key of the request (our choice)
    "echo-key",
    # the server also accepts the paths /openai/… and /openai/v1/… (Azure; lib/azure.py of the openai SDK)
    "azure-paths",
    # the header api-key also counts as a bearer token (Azure; lib/azure.py of the openai SDK)
    "api-key-header",
)


def _name(function: Callable[..., Any]) -> str:
    return function.__name__.replace("_", "-")


_REWRITES = (*wire.BATCH, *wire.CREATE_REPLY, *wire.FILE, *wire.UPLOAD_REPLY, *wire.PAGE, *lines.LINE)
#: the names of all switches
SWITCHES = frozenset({*map(_name, _REWRITES), *windows.WINDOWS, *HOOKS})

#: dialect -> its switches
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
    "ogx": ("body-text", "empty-error-file", "ogx-lines"),
    "siliconflow": ("in-queue", "no-counts", "upload-data", "windows-24h-to-14d"),
    "together": ("error-text", "iso-times", "job-fields", "job-wrapper", "progress", "uppercase-status"),
    "vllm": ("in-order", "one-file", "vllm-lines"),
}

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: lifetime of a batch that never expires, in seconds: 100 years
_ENDLESS_LIFETIME = 100 * 365 * 86_400


def build_dialect(names: Iterable[str]) -> Dialect:
    """Combine dialects and single switches, given by name.

    :raises ValueError: a name is neither a dialect nor a switch; the message lists all of them.
    """
    switches: set[str] = set()
    for name in names:
        if name not in DIALECTS and name not in SWITCHES:
            raise ValueError(
                f"There is no dialect or switch {name!r}. Dialects: {', '.join(sorted(DIALECTS))}."
                f" Single switches: {', '.join(sorted(SWITCHES))}."
            )
        switches.update(DIALECTS.get(name, (name,)))
    return Dialect(frozenset(switches))


@dataclass(frozen=True)
class Dialect:
    """A set of switches, and what they change. Without switches, every method returns its argument unchanged."""

    switches: frozenset[str] = frozenset()

    def __contains__(self, switch: str) -> bool:
        """Return whether this switch is on."""
        return switch in self.switches

    def _enabled(self, functions: Iterable[Callable[[Wire], None]]) -> tuple[Callable[[Wire], None], ...]:
        return tuple(function for function in functions if _name(function) in self.switches)

    # files, batches and lists

    @cached_property
    def _batch_rewrites(self) -> tuple[Rewrite, ...]:
        return self._enabled(wire.BATCH)

    @cached_property
    def _file_rewrites(self) -> tuple[Rewrite, ...]:
        return self._enabled(wire.FILE)

    def rewrite_batch(self, batch: Wire) -> Wire:
        """Rewrite a batch for an answer."""
        if "growing-output" in self and batch["status"] in _RUNNING:
            batch["output_file_id"] = self.result_file_id(batch["id"], "output")
            batch["error_file_id"] = self.result_file_id(batch["id"], "error")
        return _apply(batch, self._batch_rewrites)

    def create_reply(self, batch: Wire) -> Wire:
        """Return the reply to create, from a batch in OpenAI's format."""
        return _apply(self.rewrite_batch(batch), self._enabled(wire.CREATE_REPLY))

    def rewrite_file(self, file: Wire) -> Wire:
        """Rewrite a file for an answer."""
        return _apply(file, self._file_rewrites)

    def upload_reply(self, file: Wire) -> Wire:
        """Return the reply to an upload, from a file in OpenAI's format."""
        return _apply(self.rewrite_file(file), self._enabled(wire.UPLOAD_REPLY))

    def rewrite_page(self, page: Wire) -> Wire:
        """Rewrite a list whose items have already been rewritten."""
        return _apply(page, self._enabled(wire.PAGE))

    # result files

    @cached_property
    def _line_rewrites(self) -> tuple[Callable[[lines.Line], None], ...]:
        return self._enabled(lines.LINE)

    def rewrite_line(self, line: bytes) -> bytes:
        """Rewrite a line of a result file, given in OpenAI's format and without its line end."""
        if not self._line_rewrites:
            return line
        return msgspec.json.encode(_apply(msgspec.json.decode(line), self._line_rewrites))

    def result_file_id(self, batch_id: str, kind: str) -> str:
        """Return the id of a batch's result file.

        With `growing-output` the id depends only on the arguments, as it is shown before the file is complete.

        :param kind: `output` or `error`.
        """
        if "growing-output" not in self:
            return new_file_id()
        number = int.from_bytes(blake2b(f"{batch_id}/{kind}".encode()).digest())
        return "file-" + "".join(_BASE62[number // 62**digit % 62] for digit in range(22))

    # incoming requests

    @property
    def accepts_azure_requests(self) -> bool:
        """Whether requests may use Azure's paths or its API key header."""
        return "azure-paths" in self or "api-key-header" in self

    def internal_id(self, file_id: str) -> str:
        """Return the server's own id of a file, given the id that clients see."""
        if "underscore-ids" in self and file_id.startswith("file_"):
            return f"file-{file_id.removeprefix('file_')}"
        return file_id

    def endpoint(self, path: str) -> str:
        """Return OpenAI's endpoint for the endpoint in a create request."""
        if "bare-endpoints" in self and not path.startswith("/v1/"):
            return f"/v1{path}"
        return path

    def urls(self, endpoint: str) -> frozenset[str]:
        """Return the values that `url` may have in the lines of an input file."""
        return frozenset({endpoint, endpoint.removeprefix("/v1")} if "bare-endpoints" in self else {endpoint})

    def list_start(self, after: str | None, cursor: str | None) -> str | None:
        """Return the id of the item after which a list starts, given its query parameters; None for the first page."""
        if cursor is not None and "cursor" in self:
            return cursor
        return None if "ignore-after" in self else after

    @cached_property
    def windows(self) -> Windows:
        """The accepted completion windows. If several switches define them, the first one in `WINDOWS` counts."""
        return next((choice for switch, choice in windows.WINDOWS.items() if switch in self), windows.OPENAI)

    def window(self, text: str) -> str | None:
        """Return the window that a batch gets when it requests this one, or None if it is not accepted."""
        hours = windows.hours_of(text)
        if hours not in self.windows.hours or (self.windows is windows.OPENAI and text != "24h"):
            return None
        return text if self.windows.fixed_hours is None else f"{self.windows.fixed_hours}h"

    def lifetime(self, window: str, day: int) -> int:
        """Return the seconds after which a batch with this window expires.

        :param day: the seconds that 24 hours take on this server.
        """
        return _ENDLESS_LIFETIME if "never-expires" in self else (windows.hours_of(window) or 24) * day // 24


#: OpenAI's own API
OPENAI = Dialect()
_RUNNING = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


def _apply(wire_object: Wire, functions: Iterable[Callable[[Wire], None]]) -> Wire:
    for function in functions:
        function(wire_object)
    return wire_object
