"""Plain CSV, JSON and JSON lines: one case per row, with a mapping of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.evals.imports import reading
from airflow_provider_batch.evals.imports.drafts import Draft, Imported, Skipped, build_cases, tag_names
from airflow_provider_batch.evals.imports.messages import NotImportableError, flatten
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED, ImportFiles, ImportOptions
from airflow_provider_batch.evals.imports.values import text_of
from airflow_provider_batch.evals.tables import CASE_COLUMNS
from airflow_provider_batch.exceptions import InputError

Rows = Callable[[bytes, str], Iterator[tuple[int, Mapping[str, Any]]]]


def read_plain_csv(files: ImportFiles, options: ImportOptions) -> Imported:
    """Import a CSV file whose first line names the columns."""
    return _read(files, options, reading.read_csv, "line")


def read_plain_json(files: ImportFiles, options: ImportOptions) -> Imported:
    """Import a JSON file with a list of objects."""
    return _read(files, options, reading.read_json_records, "element")


def read_plain_json_lines(files: ImportFiles, options: ImportOptions) -> Imported:
    """Import a file with one JSON object per line."""
    return _read(files, options, reading.read_json_lines, "line")


def check_columns(columns: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    """Raise InputError if a mapping of columns has a name that is not one of ours."""
    for name in columns:
        if name not in allowed:
            raise InputError(f"columns: There is no column {name!r}. The columns are {', '.join(allowed)}.")


def _read(files: ImportFiles, options: ImportOptions, read_rows: Rows, unit: str) -> Imported:
    check_columns(options.columns, CASE_COLUMNS)
    place = files.address.rpartition("/")[2]
    names = {name: options.columns.get(name, name) for name in CASE_COLUMNS}
    rows = [(f"{place}, {unit} {number:,}", row) for number, row in read_rows(files.read(), place)]
    present = {name for _, row in rows for name in row}
    if "case_id" not in options.columns and "case_id" not in present:
        names["case_id"] = "id"
    missing = [name for name in {"input": names["input"], **options.columns}.values() if rows and name not in present]
    if missing:
        raise InputError(
            f"{place} has no column {missing[0]!r}. It has {', '.join(map(shorten, sorted(present)))}. Say which "
            f"column is which with `columns`, such as input=question. {NOTHING_IMPORTED}"
        )
    return build_cases(_draft(row_place, row, names, options) for row_place, row in rows)


def _draft(place: str, row: Mapping[str, Any], names: Mapping[str, str], options: ImportOptions) -> Draft | Skipped:
    grader = options.grader or text_of(row.get(names["grader"])) or ""
    if not grader.strip():
        return Skipped(place, "it has no grader. Name one for such cases with the option `grader`")
    try:
        question = flatten(row.get(names["input"]), transcript=options.transcript)
    except NotImportableError as error:
        return Skipped(place, str(error))
    return Draft(
        place=place,
        input=question,
        expected=text_of(row.get(names["expected"])),
        grader=grader.strip(),
        name=options.name,
        source_id=(text_of(row.get(names["case_id"])) or "").strip(),
        tags=tag_names(row.get(names["tags"])),
    )
