"""The command `airflow-batch evals import`: imports evals of other tools into the table of cases."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.evals.case_table import CaseChanges, CaseTable
from airflow_provider_batch.evals.graders import parse_grader
from airflow_provider_batch.evals.import_files import StoredFiles
from airflow_provider_batch.evals.imports.drafts import Imported
from airflow_provider_batch.evals.imports.formats import check_complete, read_evals
from airflow_provider_batch.evals.imports.sources import FORMATS, ImportOptions
from airflow_provider_batch.exceptions import BatchError, InputError
from airflow_provider_batch.warehouse.connect import sql_hook

DESCRIPTION = "Import evals of other tools, or cases in CSV and JSON files, into the table that nightly_eval reads."
#: maximum number of tests that were not imported, and of graders, to list
_MAX_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and options of `airflow-batch evals` to a parser."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    import_ = actions.add_parser("import", help="import a file; importing it again updates its cases")
    import_.add_argument("file", metavar="FILE", help="path or URL of the file, such as s3://bucket/cases.jsonl")
    import_.add_argument("--format", required=True, choices=FORMATS, help="what the file is")
    import_.add_argument("--table", default="eval_cases", help="table of the cases (default: eval_cases)")
    import_.add_argument("--conn", default="warehouse", metavar="CONN_ID", help="connection (default: warehouse)")
    import_.add_argument("--name", default="", help="start of ids (default: the name of the file or eval)")
    import_.add_argument("--scorer", default="", help="scorer in the other tool, where the file does not name it")
    import_.add_argument(
        "--scorer-option", action="append", default=[], metavar="NAME=VALUE", help="argument of the scorer"
    )
    import_.add_argument("--grader", default="", help="one of our graders for all cases, instead of the mapped ones")
    import_.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help="column of the file, as in input=question"
    )
    import_.add_argument("--transcript", action="store_true", help="write conversations as text into the input")
    import_.add_argument("--partial", action="store_true", help="leave out tests that cannot be imported")
    import_.add_argument("--dry-run", action="store_true", help="print what would be imported, and write nothing")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code of the process."""
    # see `cli.jobs.command`
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        return _import(arguments)
    except BatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _import(arguments: argparse.Namespace) -> int:
    address = arguments.file if "://" in arguments.file else os.path.abspath(arguments.file)
    options = ImportOptions(
        name=arguments.name,
        scorer=arguments.scorer,
        scorer_options=_pairs("--scorer-option", arguments.scorer_option),
        grader=arguments.grader,
        columns=_pairs("--column", arguments.column),
        transcript=arguments.transcript,
    )
    imported = read_evals(arguments.format, StoredFiles(address), options)
    print("\n".join(_describe(imported)))
    check_complete(imported, address, partial=arguments.partial)
    table = CaseTable(sql_hook(arguments.conn), arguments.table)
    changes = table.compare(imported.cases)
    if not arguments.dry_run:
        table.write(changes)
    print(_describe_changes(changes, arguments.table, dry_run=arguments.dry_run))
    return 0


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{option}: Expected NAME=VALUE, got {value!r}.")
        pairs[name.strip()] = text
    return pairs


def _describe(imported: Imported) -> Iterator[str]:
    """Yield the lines that say what can be imported, and what cannot."""
    total = len(imported.cases) + len(imported.skipped)
    yield f"{len(imported.cases):,} of {format_count(total, 'test')} can be imported."
    graders = Counter(_grader_names(case.grader) for case in imported.cases)
    yield from _table("GRADER", graders.most_common())
    if imported.skipped:
        yield "Cannot be imported:"
        yield from (f"    {item.place}: {item.reason}" for item in imported.skipped[:_MAX_LINES])
        if len(imported.skipped) > _MAX_LINES:
            yield f"    and {len(imported.skipped) - _MAX_LINES:,} more"
    yield from (f"Note: {note}" for note in imported.notes)


def _grader_names(text: str) -> str:
    """Return the graders of a case without their expected values, as in "icontains + judge"."""
    grader = parse_grader(text)
    names = " + ".join(element.grader.text for element in grader.elements)
    return names if grader.threshold is None else f"{names}, from a score of {grader.threshold:g}"


def _table(title: str, counts: Sequence[tuple[str, int]]) -> Iterator[str]:
    if not counts:
        return
    listed, remainder = counts[:_MAX_LINES], sum(count for _, count in counts[_MAX_LINES:])
    rows = [("CASES", title), *((f"{count:,}", name) for name, count in listed)]
    if remainder:
        rows.append((f"{remainder:,}", "others"))
    width = max(len(count) for count, _ in rows)
    yield from (f"    {count.rjust(width)}  {name}" for count, name in rows)


def _describe_changes(changes: CaseChanges, table: str, *, dry_run: bool) -> str:
    verb = "would be" if dry_run else "were"
    return (
        f"In the table {table}, {format_count(len(changes.new), 'case')} {verb} added and {len(changes.changed):,} "
        f"changed; {changes.unchanged:,} are already there.{' Nothing was written.' if dry_run else ''}"
    )
