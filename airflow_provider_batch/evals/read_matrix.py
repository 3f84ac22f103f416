"""Read all answers of a graded run from the tables of evals."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_batch.evals.matrix import Case, CaseAnswer, CaseChange, Matrix, cut_text, group_answers
from airflow_provider_batch.evals.queries import LEAST_LIKELY_CHANCE, EvalQueries, split_tags
from airflow_provider_batch.evals.report import Report


def read_matrix(tables: EvalQueries, report: Report) -> Matrix:
    """Return the answers of the run that a report is about."""
    answers = group_answers(_answers(tables, report.run))
    cases = dict(tables.cases(answers))
    (total,) = tables.rows("SELECT COUNT(DISTINCT case_id) AS cases FROM {prefix}grades WHERE run = ?", report.run)
    tags = dict(_tags(tables, report.run))
    return Matrix(
        title=report.title,
        run=report.run,
        sealed_at=report.sealed_at,
        stub_answers=report.stub_answers,
        models=sorted({answer.model for group in answers.values() for answer in group}),
        runs=report.runs,
        changes=list(_changes(tables, report.run)),
        cases=[
            Case(
                case_id=case_id,
                tags=tags.get(case_id, []),
                prompt=cut_text(cases[case_id].get("input")) if case_id in cases else None,
                expected=cut_text(cases[case_id].get("expected")) if case_id in cases else None,
                answers=group,
            )
            for case_id, group in sorted(answers.items())
        ],
        cases_total=total["cases"],
    )


def _answers(tables: EvalQueries, run: str) -> Iterator[tuple[str, CaseAnswer]]:
    rows = tables.rows(
        "SELECT g.variant, g.case_id, g.repeat, g.grader, g.score, g.passed, g.reason, g.answered, g.outcome, a.output "
        "FROM {prefix}grades g LEFT JOIN {answers} a ON a.run = g.run AND a.variant = g.variant "
        "AND a.case_id = g.case_id AND a.repeat = g.repeat WHERE g.run = ? "
        "ORDER BY g.case_id, g.variant, g.repeat",
        run,
    )
    for row in rows:
        yield (
            row["case_id"],
            CaseAnswer(
                model=row["variant"],
                repeat=int(row["repeat"]),
                text=cut_text(row["output"]),
                score=float(row["score"]),
                passed=bool(row["passed"]),
                answered=bool(row["answered"]),
                outcome=row["outcome"],
                grader=cut_text(row["grader"]) or "",
                reason=cut_text(row["reason"]),
            ),
        )


def _tags(tables: EvalQueries, run: str) -> Iterator[tuple[str, list[str]]]:
    for row in tables.rows("SELECT case_id, MAX(tags) AS tags FROM {prefix}grades WHERE run = ? GROUP BY case_id", run):
        yield row["case_id"], split_tags(row["tags"])


def _changes(tables: EvalQueries, run: str) -> Iterator[CaseChange]:
    rows = tables.rows(
        "SELECT variant, case_id, change, score_before, score_now, runs_before, right_before FROM {prefix}changes "
        f"WHERE run = ? AND change <> 'edited' ORDER BY variant, {LEAST_LIKELY_CHANCE}",
        run,
    )
    for row in rows:
        yield CaseChange(
            case_id=row["case_id"],
            model=row["variant"],
            change=row["change"],
            score_before=float(row["score_before"]),
            score_now=float(row["score_now"]),
            runs_before=int(row["runs_before"]),
            right_before=int(row["right_before"]),
        )
