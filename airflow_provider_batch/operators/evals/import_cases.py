"""`EvalImportOperator`: import evals of other tools into the table of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.evals.imports.sources import ImportOptions
from airflow_provider_batch.operators.evals.arguments import check_fields, parse_fields
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.worker.airflow_errors import airflow_failures
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_batch.evals.imports.drafts import Imported

#: maximum number of tests that were left out, to log
_MAX_LINES = 20


class EvalImportOperator(CheckedMapping, BaseOperator):
    """Import a file of another tool's evals into the table of cases. `airflow-batch evals import` does the same.

    Nothing is written before the whole file is understood. Importing a file again updates its cases and never doubles
    them. Cases that are no longer in the file stay in the table. `docs/evals/importing-evals.md` has the mapping.

    Returns a dict with `cases` (number of cases in the file), `added`, `changed`, `unchanged` and `left_out` (number of
    tests that could not be imported).

    :param file: absolute path or URL of the file, such as `s3://aws_default@bucket/evals/promptfooconfig.yaml`. Files
        that it names are read from its folder.
    :param format: openai, inspect, promptfoo, csv, jsonl or json.
    :param table: table of the cases. It is created if it does not exist.
    :param name: start of the ids of cases whose source has none. Default: the name of the file or of the eval.
    :param scorer: scorer in the other tool, where the file does not name it: `Match` (openai) or `includes` (inspect).
    :param scorer_options: arguments of this scorer, such as `{"ignore_case": "false"}`.
    :param grader: a grader of ours for all cases, instead of the mapped one.
    :param columns: columns of the file by our names, such as `{"input": "question", "expected": "answer"}`.
    :param transcript: write conversations as text into the input, instead of leaving them out.
    :param allow_partial: import the rest of a file with tests that cannot be imported, and log these.
    :param warehouse_conn_id: connection to write to.
    :raises AirflowFailException: if the file, or without `allow_partial` one of its tests, cannot be imported.
    """

    template_fields: Sequence[str] = (
        "file",
        "format",
        "table",
        "name",
        "scorer",
        "scorer_options",
        "grader",
        "columns",
        "transcript",
        "allow_partial",
        "warehouse_conn_id",
    )
    ui_color = "#e8e4f3"

    @check_arguments
    def __init__(
        self,
        *,
        file: str,
        format: str,  # the name of the option of the command, too
        table: str = "eval_cases",
        name: str = "",
        scorer: str = "",
        scorer_options: Mapping[str, str] | None = None,
        grader: str = "",
        columns: Mapping[str, str] | None = None,
        transcript: bool | str = False,
        allow_partial: bool | str = False,
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file = file
        self.format = format
        self.table = table
        self.name = name
        self.scorer = scorer
        self.scorer_options: Any = scorer_options
        self.grader = grader
        self.columns: Any = columns
        self.transcript: Any = transcript
        self.allow_partial: Any = allow_partial
        self.warehouse_conn_id = warehouse_conn_id
        check_fields(self)

    def execute(self, context: Context) -> dict[str, int]:
        """Import the file and return what changed."""
        with airflow_failures(self.log):
            parse_fields(self)
            return self._execute()

    def _execute(self) -> dict[str, int]:
        # imported here, because parsing a DAG file needs neither YAML nor file systems
        from airflow_provider_batch.evals.case_table import CaseTable
        from airflow_provider_batch.evals.import_files import StoredFiles
        from airflow_provider_batch.evals.imports.formats import check_complete, read_evals

        options = ImportOptions(
            name=self.name,
            scorer=self.scorer,
            scorer_options=self.scorer_options,
            grader=self.grader,
            columns=self.columns,
            transcript=self.transcript,
        )
        imported = read_evals(self.format, StoredFiles(self.file), options)
        check_complete(imported, self.file, partial=self.allow_partial)
        self._log_differences(imported)
        table = CaseTable(sql_hook(self.warehouse_conn_id), self.table)
        changes = table.compare(imported.cases)
        table.write(changes)
        self.log.info(
            "Imported %s from %s: %s added, %s changed, %s unchanged.",
            format_count(len(imported.cases), "case"),
            self.file,
            f"{len(changes.new):,}",
            f"{len(changes.changed):,}",
            f"{changes.unchanged:,}",
        )
        return {
            "cases": len(imported.cases),
            "added": len(changes.new),
            "changed": len(changes.changed),
            "unchanged": changes.unchanged,
            "left_out": len(imported.skipped),
        }

    def _log_differences(self, imported: Imported) -> None:
        for note in imported.notes:
            self.log.info("%s", note)
        for item in imported.skipped[:_MAX_LINES]:
            self.log.warning("Left out %s: %s.", item.place, item.reason)
        if len(imported.skipped) > _MAX_LINES:
            self.log.warning("Left out %s more tests.", f"{len(imported.skipped) - _MAX_LINES:,}")
