"""The tables of evals: their columns and keys, and the SQL of a gate.

The column `run` names a run (by default the DAG run's id), and `variant` names a model. `eval_answers` and
`eval_judgements` are results tables, written by `BatchResultsOperator`. `EvalGradeOperator` writes the others, always
all rows of a run in one transaction. `EvalAcceptOperator` writes `eval_accepted`, which you may also edit by hand, and
`eval_labels` is only edited by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError

#: Columns that the query of the cases must return: the `cases_sql` of the operators.
CASE_COLUMNS = ("case_id", "input", "expected", "grader", "tags")

#: Columns that grading reads from `eval_answers`. `run` and `variant` are key columns of the landing; `case_id` and
#: `repeat` (counted from 1) are carried. The custom_id is the case_id, or `case_id~2` for the second repeat of a case.
#: A job with repeats needs `deduplicate=False`: otherwise a case is sent once, and all its repeats get the same answer.
ANSWER_COLUMNS = (
    "variant",
    "case_id",
    "repeat",
    "outcome",
    "output",
    "cost_usd",
    "input_tokens",
    "output_tokens",
    "sealed_at",
)

#: Columns that grading reads from `eval_judgements`. It has the same keys and carried columns as the answers, and
#: `verdict`, `score` and `reason` come from the judge's output. Each verdict is a row, with a custom_id of its own if
#: several judges, or the same one several times, judge an answer.
JUDGEMENT_COLUMNS = ("variant", "case_id", "repeat", "outcome", "verdict", "score", "reason", "cost_usd")

#: tag of the summary over all cases
ALL_CASES = ""


@dataclass(frozen=True)
class EvalTable:
    """A table that the eval operators write."""

    #: name without the prefix, which is `eval_` by default
    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)


def _columns(keys: Sequence[tuple[str, ColumnType]], values: Sequence[tuple[str, ColumnType]]) -> tuple[Column, ...]:
    return (
        *(Column(name, type_, key=True) for name, type_ in keys),
        *(Column(name, type_) for name, type_ in values),
    )


_TEXT, _INTEGER, _FLOAT = ColumnType.TEXT, ColumnType.INTEGER, ColumnType.FLOAT
_NUMERIC, _TIMESTAMP = ColumnType.NUMERIC, ColumnType.TIMESTAMP
_RUN_VARIANT = (("run", _TEXT), ("variant", _TEXT))

#: one row per answer
GRADES = EvalTable(
    "grades",
    _columns(
        (*_RUN_VARIANT, ("case_id", _TEXT), ("repeat", _INTEGER)),
        (
            ("grader", _TEXT),
            # From 0 to 1. An answer that never came also has 0; `answered` tells the two apart.
            ("score", _FLOAT),
            # 1 if the answer is right, else 0
            ("passed", _INTEGER),
            ("reason", _TEXT),
            ("tags", _TEXT),
            # outcome of the answer: succeeded, refused, expired, ...
            ("outcome", _TEXT),
            # 1 if there is an answer (and, with a grader by a judge, a verdict on it), else 0
            ("answered", _INTEGER),
            # hash of the input alone, and hash of input, expected value and grader; only grades with the same
            # case_sha256 are compared
            ("input_sha256", _TEXT),
            ("case_sha256", _TEXT),
            ("graded_at", _TIMESTAMP),
        ),
    ),
)

#: one row per run, variant and tag; the tag '' stands for all cases
SUMMARIES = EvalTable(
    "summaries",
    _columns(
        (*_RUN_VARIANT, ("tag", _TEXT)),
        (
            ("cases", _INTEGER),
            # answers = cases times repeats = graded + unanswered; `correct` counts the graded answers that are right
            ("answers", _INTEGER),
            ("graded", _INTEGER),
            ("unanswered", _INTEGER),
            ("correct", _INTEGER),
            # mean over the cases of each case's mean score, with unanswered as wrong, and its 95 % interval
            ("accuracy", _FLOAT),
            ("low", _FLOAT),
            ("high", _FLOAT),
            # share of the cases with at least one right answer (pass@k, where k is the number of repeats), and with
            # more right answers than wrong ones
            ("pass_any", _FLOAT),
            ("pass_majority", _FLOAT),
            # US dollars; NULL if the price of an answer is unknown
            ("cost_usd", _NUMERIC),
            # cost of the judges' verdicts; NULL if unknown, 0 without a judge
            ("judge_cost_usd", _NUMERIC),
            # NULL if the usage of an answer is unknown
            ("input_tokens", _INTEGER),
            ("output_tokens", _INTEGER),
            # when the job of the answers was sealed, and when they were last graded
            ("sealed_at", _TIMESTAMP),
            ("graded_at", _TIMESTAMP),
        ),
    ),
)

#: One row per run, variant and tag: the comparison with its baseline; the tag '' stands for all cases. The baseline is
#: the last accepted run of the same variant that was sealed before it, plus the accepted runs before that one, as long
#: as each was the `same` as its own baseline. Without a baseline there is only the row of all cases.
COMPARISONS = EvalTable(
    "comparisons",
    _columns(
        (*_RUN_VARIANT, ("tag", _TEXT)),
        (
            # the last accepted run; NULL if there is none
            ("baseline_run", _TEXT),
            # number of accepted runs in the baseline, including the last one
            ("baseline_runs", _INTEGER),
            # number of accepted runs before an accepted change, which only say how steady each case is
            ("older_runs", _INTEGER),
            # cases that are unchanged and were answered in both runs; `left_out` counts this run's other cases, and is
            # 0 for a tag
            ("cases", _INTEGER),
            ("left_out", _INTEGER),
            # cases that were wrong and are right now; cases that were right and are wrong now
            ("better", _INTEGER),
            ("worse", _INTEGER),
            # accuracy now minus accuracy before, over these cases
            ("difference", _FLOAT),
            # how often chance alone makes a loss, or a gain, as large as this one; corrected for the number of tags
            # and variants; NULL without a baseline
            ("p_worse", _FLOAT),
            ("p_better", _FLOAT),
            ("alpha", _FLOAT),
            # the smallest drop in accuracy that would be found on about three of four nights; NULL if none would,
            # and for a tag.
            ("smallest_drop", _FLOAT),
            # no_history | same | improved | regressed | mixed. That of all cases counts the tags as well: it is
            # regressed if a tag is.
            ("verdict", _TEXT),
            ("graded_at", _TIMESTAMP),
        ),
    ),
)

#: one row per compared case that went from right to wrong or from wrong to right, and per wrong case that is not
#: compared because it was edited
CHANGES = EvalTable(
    "changes",
    _columns(
        (*_RUN_VARIANT, ("case_id", _TEXT)),
        (
            ("baseline_run", _TEXT),
            # better | worse | edited: the question, expected value or grader changed, and the case was wrong before or
            # is wrong now
            ("change", _TEXT),
            # mean scores over the answers; `score_before` is the mean over all runs of the baseline
            ("score_before", _FLOAT),
            ("score_now", _FLOAT),
            ("tags", _TEXT),
            # number of baseline runs in which the case was answered, and in which it was right, including those before
            # an accepted change. The closer the two are, the less likely it is that a regression is chance.
            ("runs_before", _INTEGER),
            ("right_before", _INTEGER),
        ),
    ),
)

#: accepted runs, which later runs are compared with
ACCEPTED = EvalTable("accepted", _columns(_RUN_VARIANT, (("accepted_at", _TIMESTAMP), ("note", _TEXT))))

#: What people say of answers, to check the judges by: `label` is `correct` or `incorrect`. Only people write it.
LABELS = EvalTable(
    "labels",
    _columns(
        (*_RUN_VARIANT, ("case_id", _TEXT), ("repeat", _INTEGER)),
        (("label", _TEXT), ("note", _TEXT)),
    ),
)

#: the id of the current DAG run, as an Airflow template inside a quoted SQL string
THIS_RUN = '{{ run_id | replace("\'", "\'\'") }}'

#: the tables that `EvalGradeOperator` replaces for a run
GRADING_TABLES = (GRADES, SUMMARIES, COMPARISONS, CHANGES)


#: A prefix that needs no quotation marks, because databases quote names differently.
_UNQUOTED_PREFIX = re.compile(r"(\w+\.)*\w*")


def gate_sql(run: str = THIS_RUN, prefix: str = "eval_", max_unanswered: float = 0.02) -> str:
    """Return the query of a gate, for `SQLCheckOperator(sql=gate_sql())`.

    It runs on every database and returns one row. Each column is 1 if its check passes, else 0:

    - `graded`: the run has grades at all;
    - `answered`: no variant lacks more than `max_unanswered` of its answers;
    - `no_regression`: no variant is `regressed` or `mixed`, neither over all cases nor over those of a tag. A variant
      without history passes.

    :param run: id of the run to check, or an Airflow template for it; by default the current DAG run.
    :param prefix: as passed to the operators.
    :param max_unanswered: share of a variant's answers that may be missing, between 0 and 1.
    :raises InputError: if the prefix has characters other than letters, digits, underscores and dots.
    """
    if not _UNQUOTED_PREFIX.fullmatch(prefix):
        raise InputError(
            f"The prefix {prefix!r} does not work in gate_sql, which uses table names without quotation marks. Use "
            "letters, digits, underscores and dots, such as 'analytics.eval_'."
        )
    run = run.replace("'", "''") if "{{" not in run else run
    return (
        f"SELECT CASE WHEN EXISTS (SELECT 1 FROM {prefix}summaries WHERE run = '{run}') "
        f"THEN 1 ELSE 0 END AS graded,\n"
        f"  CASE WHEN EXISTS (SELECT 1 FROM {prefix}summaries WHERE run = '{run}' AND tag = ''\n"
        f"    AND unanswered > {max_unanswered} * answers) THEN 0 ELSE 1 END AS answered,\n"
        f"  CASE WHEN EXISTS (SELECT 1 FROM {prefix}comparisons WHERE run = '{run}'\n"
        f"    AND verdict IN ('regressed', 'mixed')) THEN 0 ELSE 1 END AS no_regression"
    )
