"""The reader of each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from airflow_provider_batch.evals.imports.drafts import Imported
from airflow_provider_batch.evals.imports.inspect_ai import read_inspect
from airflow_provider_batch.evals.imports.openai import read_openai
from airflow_provider_batch.evals.imports.plain import read_plain_csv, read_plain_json, read_plain_json_lines
from airflow_provider_batch.evals.imports.promptfoo import read_promptfoo
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED, ImportFiles, ImportOptions
from airflow_provider_batch.exceptions import InputError

_READERS: Mapping[str, Callable[[ImportFiles, ImportOptions], Imported]] = {
    "openai": read_openai,
    "inspect": read_inspect,
    "promptfoo": read_promptfoo,
    "csv": read_plain_csv,
    "jsonl": read_plain_json_lines,
    "json": read_plain_json,
}

#: maximum number of tests that an error message lists
_MAX_PROBLEMS = 10


def read_evals(format_: str, files: ImportFiles, options: ImportOptions) -> Imported:
    """Read a file of one of the formats, and everything that it names.

    :raises InputError: if the file cannot be read as a whole. Single tests that cannot be imported are in the result.
    """
    if not options.name:
        stem = files.address.rstrip("/").rpartition("/")[2].partition(".")[0]
        options = msgspec.structs.replace(options, name=stem)
    imported = _READERS[format_](files, options)
    if not imported.cases and not imported.skipped:
        raise InputError(f"{files.address} has no tests. {NOTHING_IMPORTED}")
    return imported


def check_complete(imported: Imported, address: str, *, partial: bool) -> None:
    """Raise InputError if a part of a file could not be imported and `partial` does not allow that."""
    skipped = imported.skipped
    if (partial and imported.cases) or not skipped:
        return
    listed = "\n  ".join(f"{item.place}: {item.reason}." for item in skipped[:_MAX_PROBLEMS])
    remainder = f"\n  and {len(skipped) - _MAX_PROBLEMS:,} more" if len(skipped) > _MAX_PROBLEMS else ""
    advice = " To import the others, use `--partial`, or `allow_partial=True` of the task." if imported.cases else ""
    raise InputError(
        f"{len(skipped):,} of {len(skipped) + len(imported.cases):,} tests of {address} cannot be imported:\n  "
        f"{listed}{remainder}\n{NOTHING_IMPORTED}{advice}"
    )
