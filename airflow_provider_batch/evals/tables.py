"""The tables of evals: their columns, keys, and the query that a gate asks.

A run is named by `run` (the DAG run's id by default) and a model by `variant`. `eval_answers` and `eval_judgements` are
results tables that BatchResultsOperator lands in; the others are written by `EvalGradeOperator`, the rows of a run
always all at once, and `eval_accepted` by `EvalAcceptOperator` or by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError

#: what is read of the cases; `sql` of the operators gives these columns
CASE_COLUMNS = ("case_id", "input", "expected", "grader", "tags")

#: what is read of `eval_answers`: `run` and `variant` are key columns of the landing, `case_id` and `repeat` (1, 2, and
#: so on) are carried. custom_id is the case_id, or `case_id~2` for the second time that a case is asked. A job that
#: asks cases several times needs `deduplicate=False`, or all repeats get one and the same answer.
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

#: what is read of `eval_judgements`: keyed and carried as the answers, `verdict` and `reason` from the judge's output
JUDGEMENT_COLUMNS = ("variant", "case_id", "repeat", "outcome", "verdict", "reason", "cost_usd")

#: the tag of the summary over all cases
ALL = ""


@dataclass(frozen=True)
class EvalTable:
    """One table that is written here."""

    #: its name after the prefix, which is `eval_` unless told otherwise
    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names in order."""
        return tuple(column.name for column in self.columns)


def _columns(key: Sequence[tuple[str, ColumnType]], others: Sequence[tuple[str, ColumnType]]) -> tuple[Column, ...]:
    return (
        *(Column(name, type_, key=True) for name, type_ in key),
        *(Column(name, type_) for name, type_ in others),
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
            # 1 right, 0 wrong. An answer that never came is 0 as well, and `answered` tells the two apart.
            ("score", _FLOAT),
            ("reason", _TEXT),
            ("tags", _TEXT),
            # of the answer: succeeded, refused, expired, ...
            ("outcome", _TEXT),
            # 1 where there was an answer (and, with the grader `judge`, a verdict on it), else 0
            ("answered", _INTEGER),
            # of the input alone, and of input, expected and grader: what has changed is not compared
            ("input_sha256", _TEXT),
            ("case_sha256", _TEXT),
            ("graded_at", _TIMESTAMP),
        ),
    ),
)

#: one row per tag; the tag '' is all cases
SUMMARIES = EvalTable(
    "summaries",
    _columns(
        (*_RUN_VARIANT, ("tag", _TEXT)),
        (
            ("cases", _INTEGER),
            # cases times repeats; of these graded + unanswered; correct of graded
            ("answers", _INTEGER),
            ("graded", _INTEGER),
            ("unanswered", _INTEGER),
            ("correct", _INTEGER),
            # the mean over the cases of the mean score of each, unanswered counted as wrong; and its 95 % interval
            ("accuracy", _FLOAT),
            ("low", _FLOAT),
            ("high", _FLOAT),
            # NULL where the price of an answer is unknown
            ("cost_usd", _NUMERIC),
            # of the judge's verdicts; NULL where unknown, 0 without a judge
            ("judge_cost_usd", _NUMERIC),
            ("input_tokens", _INTEGER),
            ("output_tokens", _INTEGER),
            # when the job of the answers was sealed, and when they were graded last
            ("asked_at", _TIMESTAMP),
            ("graded_at", _TIMESTAMP),
        ),
    ),
)

#: one row per run and variant: held against the last accepted run of the same variant that was asked before it, and
#: those accepted before that one of which it was the `same`
COMPARISONS = EvalTable(
    "comparisons",
    _columns(
        _RUN_VARIANT,
        (
            # NULL where there is none
            ("baseline_run", _TEXT),
            # how many accepted runs that is, the last one among them
            ("baseline_runs", _INTEGER),
            # those in both, unchanged and answered in both; the others of this run are `left_out`
            ("cases", _INTEGER),
            ("left_out", _INTEGER),
            # were wrong and are right; were right and are wrong
            ("better", _INTEGER),
            ("worse", _INTEGER),
            # accuracy now less accuracy before, over these cases
            ("difference", _FLOAT),
            # two-sided; `p_corrected` for the number of variants in the run (Holm); NULL without a baseline
            ("p_value", _FLOAT),
            ("p_corrected", _FLOAT),
            ("alpha", _FLOAT),
            # no_history | same | improved | regressed
            ("verdict", _TEXT),
            ("graded_at", _TIMESTAMP),
        ),
    ),
)

#: one row per compared case that was right and is wrong, or the other way round: the named regressions and improvements
CHANGES = EvalTable(
    "changes",
    _columns(
        (*_RUN_VARIANT, ("case_id", _TEXT)),
        (
            ("baseline_run", _TEXT),
            # better | worse
            ("change", _TEXT),
            # mean scores over the answers; before: of all runs of the baseline
            ("score_before", _FLOAT),
            ("score_now", _FLOAT),
            ("tags", _TEXT),
            # in how many runs of the baseline the case was answered, and in how many right. The nearer the two, the
            # less likely is a regression to be chance.
            ("runs_before", _INTEGER),
            ("right_before", _INTEGER),
        ),
    ),
)

#: the runs that later ones are held against
ACCEPTED = EvalTable("accepted", _columns(_RUN_VARIANT, (("accepted_at", _TIMESTAMP), ("note", _TEXT))))

#: the run of the task that asks, as a template of Airflow's within a text of SQL
THIS_RUN = '{{ run_id | replace("\'", "\'\'") }}'

#: those that grading a run writes anew
WRITTEN = (GRADES, SUMMARIES, COMPARISONS, CHANGES)


#: a prefix that needs no quotation marks, which differ between databases
_PLAIN = re.compile(r"(\w+\.)*\w*")


def gate_sql(run: str = THIS_RUN, prefix: str = "eval_", max_unanswered: float = 0.02) -> str:
    """The query of a gate, for `SQLCheckOperator(sql=gate_sql())`: one row, each column 1 where all is well.

    `graded`: the run has grades at all. `answered`: of no variant more than this share of answers is missing.
    `no_regression`: no variant is `regressed`; one without history passes. SQL that every database runs.

    :param run: the run to judge; a template of Airflow's by default, else a run_id.
    :param prefix: as given to the operators.
    :param max_unanswered: the share of a variant's answers that may be missing.
    :raises InputError: for a prefix of other characters than letters, digits, _ and dots.
    """
    if not _PLAIN.fullmatch(prefix):
        raise InputError(f"The prefix {prefix!r} is none that a table can be named by without quotation marks.")
    run = run.replace("'", "''") if "{{" not in run else run
    return (
        f"SELECT CASE WHEN EXISTS (SELECT 1 FROM {prefix}summaries WHERE run = '{run}') "
        f"THEN 1 ELSE 0 END AS graded,\n"
        f"  CASE WHEN EXISTS (SELECT 1 FROM {prefix}summaries WHERE run = '{run}' AND tag = ''\n"
        f"    AND unanswered > {max_unanswered} * answers) THEN 0 ELSE 1 END AS answered,\n"
        f"  CASE WHEN EXISTS (SELECT 1 FROM {prefix}comparisons WHERE run = '{run}'\n"
        f"    AND verdict = 'regressed') THEN 0 ELSE 1 END AS no_regression"
    )
