"""Samples of inspect_ai: JSON lines, JSON or CSV with input, target, choices, id and metadata.

The scorer of a task is in its Python code, so it is an option of the import. `inspect_scorers` maps it to a grader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.evals.imports.drafts import Draft, Imported, Skipped, build_cases, tag_names
from airflow_provider_batch.evals.imports.inspect_scorers import SCORERS, Scorer, scorer_of, write_choices
from airflow_provider_batch.evals.imports.messages import NotImportableError, flatten
from airflow_provider_batch.evals.imports.plain import check_columns
from airflow_provider_batch.evals.imports.reading import read_csv, read_json_lines, read_json_records
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED, ImportFiles, ImportOptions
from airflow_provider_batch.evals.imports.values import text_of
from airflow_provider_batch.exceptions import InputError

_FIELDS = ("id", "input", "target", "choices", "tags")
#: fields of a sample that mean more than one question and one answer
_UNSUPPORTED = ("sandbox", "files", "setup")

_SOLVER_NOTE = (
    "Only the samples were imported. Prompts that the task's solver adds, such as a system message, were not."
)


def read_inspect(files: ImportFiles, options: ImportOptions) -> Imported:
    """Import a file of samples, by its ending .jsonl, .json or .csv."""
    check_columns(options.columns, _FIELDS)
    if not options.grader and options.scorer not in SCORERS:
        raise InputError(
            f"{files.address} has samples, but not how to grade them. Name the scorer of the task with the option "
            f"`scorer` ({', '.join(SCORERS)}), or one of our graders with the option `grader`. {NOTHING_IMPORTED}"
        )
    scorer = None if options.grader else scorer_of(options.scorer, options.scorer_options)
    place = files.address.rpartition("/")[2]
    items = [_draft(f"{place}, {unit} {number:,}", record, scorer, options) for unit, number, record in _records(files)]
    return build_cases(items, [_SOLVER_NOTE, *(scorer.notes if scorer else ())])


def _records(files: ImportFiles) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Yield the unit in which the file is counted, the number and the record of each sample."""
    place = files.address.rpartition("/")[2]
    ending = place.rpartition(".")[2].lower()
    if ending not in ("jsonl", "json", "csv"):
        raise InputError(f"{files.address} does not end in .jsonl, .json or .csv. {NOTHING_IMPORTED}")
    data = files.read()
    if ending == "csv":
        yield from (("line", number, record) for number, record in read_csv(data, place))
    elif ending == "json":
        yield from (("element", number, record) for number, record in read_json_records(data, place))
    else:
        yield from (("line", number, record) for number, record in read_json_lines(data, place))


def _draft(place: str, record: Mapping[str, Any], scorer: Scorer | None, options: ImportOptions) -> Draft | Skipped:
    def field(name: str) -> Any:
        return record.get(options.columns.get(name, name))

    try:
        for name in _UNSUPPORTED:
            if record.get(name):
                raise NotImportableError(f"it has {name!r}: the model works in a sandbox")
        if "input" not in options.columns and "input" not in record:
            raise NotImportableError("it has no input; say which field it is with `columns`, such as input=question")
        question = flatten(field("input"), transcript=options.transcript)
        targets, choices = _targets(field("target")), _choices(field("choices"))
        if choices and (scorer is None or not scorer.uses_choices):
            raise NotImportableError("it has choices, which only the scorer choice writes into the question")
        if scorer is None:
            expected: str | None = targets[0] if len(targets) == 1 else json.dumps(targets, ensure_ascii=False)
            grader = options.grader
        else:
            if scorer.uses_choices:
                question = write_choices(question, choices)
            expected, grader = scorer.grade(targets, choices)
    except NotImportableError as error:
        return Skipped(place, str(error))
    return Draft(
        place=place,
        input=question,
        expected=expected,
        grader=grader,
        name=options.name,
        source_id=(text_of(field("id")) or "").strip(),
        tags=_tags(record, options.columns.get("tags")),
    )


def _targets(value: Any) -> list[str]:
    values = value if isinstance(value, list) else ["" if value is None else value]
    return [text_of(item) or "" for item in values]


def _choices(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        # as inspect_ai splits a column of a CSV file
        parts = value.split(",") if "," in value else value.split()
        return [part.strip() for part in parts if part.strip()]
    if not isinstance(value, list):
        raise NotImportableError(f"its choices are not a list: {shorten(value)}")
    return [str(item) for item in value if str(item).strip()]


def _tags(record: Mapping[str, Any], name: str | None) -> tuple[str, ...]:
    """Return the tags in a field of the record or of its metadata."""
    if name is None:
        return ()
    metadata = record.get("metadata")
    if isinstance(metadata, str) and metadata.strip():
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError):
            metadata = None
    value = record.get(name, metadata.get(name) if isinstance(metadata, Mapping) else None)
    return tag_names(value if isinstance(value, list) else text_of(value))
