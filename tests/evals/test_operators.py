"""Cases and answers in tables, through the operators, into grades, summaries and comparisons."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from jinja2 import Environment

from airflow_provider_batch.evals.tables import gate_sql
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.operators.evals import EvalCasesOperator, EvalGradeOperator
from tests.evals.conftest import Evals

CASES = [(f"c{number:02}", str(number), "numeric", "sums,even" if number % 2 == 0 else "sums") for number in range(20)]
RIGHT = [(case_id, expected) for case_id, expected, _, _ in CASES]
WRONG_HALF = [(case_id, "77" if number < 10 else expected) for number, (case_id, expected) in enumerate(RIGHT)]


def written(evals: Evals) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that grading wrote, but for when."""
    columns = {
        "eval_grades": "run, variant, case_id, repeat, grader, score, reason, tags, outcome, answered, case_sha256",
        "eval_summaries": "run, variant, tag, cases, answers, graded, correct, accuracy, low, high, cost_usd",
        "eval_comparisons": "run, variant, baseline_run, baseline_runs, left_out, better, worse, p_value, verdict",
        "eval_changes": "run, variant, case_id, baseline_run, change, score_before, score_now, right_before",
    }
    return {name: evals.table(name, listed) for name, listed in columns.items()}


def gate(evals: Evals, run: str, **options: Any) -> tuple[int, ...]:
    (row,) = evals.warehouse.execute(gate_sql(run, **options))
    return tuple(row)


def test_a_run_is_graded_summed_up_and_held_against_the_last_accepted_one(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    evals.land("night-1", "mini", RIGHT)
    first = evals.grade("night-1")["variants"]["mini"]
    assert first["accuracy"] == 1.0
    assert first["low"] == pytest.approx(0.8389, abs=1e-4)
    assert (first["verdict"], first["baseline_run"], first["cost_usd"]) == ("no_history", None, "0.02")
    assert gate(evals, "night-1") == (1, 1, 1)

    assert evals.accept("night-1", note="first") == ["mini"]
    evals.land("night-2", "mini", WRONG_HALF)
    second = evals.grade("night-2")["variants"]["mini"]
    assert (second["verdict"], second["baseline_run"], second["worse"], second["better"]) == (
        "regressed",
        "night-1",
        10,
        0,
    )
    assert second["regressions"] == [f"c{number:02}" for number in range(10)]
    assert second["difference"] == -0.5
    assert gate(evals, "night-2") == (1, 1, 0)

    assert evals.table("eval_summaries", "tag, cases, correct, input_tokens", "run, tag")[3:] == [
        ("", 20, 10, 200),
        ("even", 10, 5, 100),
        ("sums", 20, 10, 200),
    ]
    changed = evals.table("eval_changes", "run, case_id, change, score_before, score_now", "case_id")
    assert changed[0] == ("night-2", "c00", "worse", 1.0, 0.0)
    assert len(changed) == 10


def test_grading_a_run_again_ends_in_the_same_tables(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.land("one", "large", WRONG_HALF)
    evals.grade("one")
    evals.accept("one")
    evals.land("two", "mini", WRONG_HALF)
    evals.land("two", "large", RIGHT)
    evals.grade("two")
    before = written(evals)
    evals.grade("two")
    evals.grade("one")
    assert written(evals) == before
    assert {row[-1] for row in before["eval_comparisons"]} == {"no_history", "regressed", "improved"}


def test_old_answers_are_graded_anew_when_what_was_expected_is_corrected(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", [("c00", "5"), *RIGHT[1:]])
    assert evals.grade("one")["variants"]["mini"]["accuracy"] == 0.95
    evals.cases(("c00", "5", "numeric", "sums"), *CASES[1:])
    assert evals.grade("one")["variants"]["mini"]["accuracy"] == 1.0


def test_an_answer_to_what_is_no_longer_the_question_keeps_its_grade_however_often_the_run_is_graded(
    evals_anywhere: Evals,
) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    assert (evals.grade("one")["kept"], evals.grade("one")["gone"]) == (0, 0)
    before = written(evals)
    evals.cases(("c00", "77", "numeric", "", "Another question?"), *CASES[2:])
    for _ in range(2):
        account = evals.grade("one")
        assert (account["cases"], account["kept"], account["gone"]) == (19, 2, 0)
        assert account["variants"]["mini"]["accuracy"] == 1.0
        assert written(evals) == before


def test_a_run_that_was_cleared_and_asked_anew_is_graded_anew_though_its_question_has_changed(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.grade("one")
    evals.cases(("c00", "77", "numeric", "", "Another question?"), *CASES[1:])
    evals.land("one", "mini", RIGHT, anew=True)
    account = evals.grade("one")
    assert (account["kept"], account["variants"]["mini"]["accuracy"]) == (0, 0.95)


def test_an_answer_whose_case_was_gone_before_it_was_graded_is_left_out(evals: Evals) -> None:
    evals.cases(*CASES[2:])
    evals.land("one", "mini", RIGHT)
    account = evals.grade("one")
    assert (account["gone"], account["variants"]["mini"]["cases"]) == (2, 18)
    evals.cases(("other", "1", "numeric", ""))
    evals.land("two", "mini", RIGHT)
    with pytest.raises(AirflowFailException, match="20 answers of the run belong to no case"):
        evals.grade("two")


def test_cases_that_are_new_gone_or_changed_are_not_compared(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.grade("one")
    evals.accept("one")
    new = [("c00", "999", "numeric", ""), *CASES[1:19], ("new", "1", "exact", "")]
    evals.cases(*new)
    evals.land("two", "mini", [(case_id, "wrong") for case_id, *_ in [*CASES[:19], ("new",)]])
    account = evals.grade("two")["variants"]["mini"]
    assert account["worse"] == 18
    assert "c00" not in account["regressions"]
    assert evals.table("eval_comparisons", "cases, left_out", "run")[-1] == (18, 2)


def test_an_outage_lowers_the_accuracy_and_is_told_but_is_no_regression(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.grade("one")
    evals.accept("one")
    evals.land("two", "mini", [(case_id, None, "expired") for case_id, _ in RIGHT[:15]] + RIGHT[15:])
    account = evals.grade("two")["variants"]["mini"]
    assert (account["unanswered"], account["graded"], account["accuracy"]) == (15, 5, 0.25)
    assert (account["verdict"], account["worse"]) == ("same", 0)
    assert gate(evals, "two") == (1, 0, 1)
    assert gate(evals, "two", max_unanswered=0.75) == (1, 1, 1)


def test_refused_and_cut_off_answers_are_wrong_as_they_are_the_models_own(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.grade("one")
    evals.accept("one")
    outcomes = ["refused", "incomplete", "invalid_output"] * 4
    evals.land("two", "mini", [(*pair, o) for pair, o in zip(RIGHT, outcomes, strict=False)] + RIGHT[12:])
    account = evals.grade("two")["variants"]["mini"]
    assert (account["unanswered"], account["worse"], account["verdict"]) == (0, 12, "regressed")
    assert {row[0] for row in evals.table("eval_grades", "reason", "1") if row[0] in outcomes} == set(outcomes)


def test_a_model_that_nothing_landed_of_is_unanswered_if_it_was_to_be_asked(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    account = evals.grade("one", variants=["mini", "large"])
    assert account["variants"]["large"]["unanswered"] == 20
    assert gate(evals, "one") == (1, 0, 1)


def test_with_repeats_the_cases_are_what_is_counted(evals: Evals) -> None:
    evals.cases(*CASES)
    repeated = [(case_id, expected, "succeeded", repeat) for case_id, expected in RIGHT for repeat in (1, 2, 3)]
    evals.land("one", "mini", repeated)
    account = evals.grade("one")["variants"]["mini"]
    assert (account["cases"], account["answers"]) == (20, 60)
    assert account["low"] == pytest.approx(0.8389, abs=1e-4)
    evals.accept("one")
    wrong = {("c00", 1), ("c00", 2), ("c01", 3)}
    evals.land("two", "mini", [(c, "-1" if (c, n) in wrong else e, o, n) for c, e, o, n in repeated])
    account = evals.grade("two")["variants"]["mini"]
    assert account["accuracy"] == pytest.approx(57 / 60)
    assert account["difference"] == pytest.approx(-3 / 60)
    # wrong most of the time; c01 is still right most of the time
    assert account["regressions"] == ["c00"]


def test_verdicts_come_from_the_judges_table(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*((case_id, "friendly", "judge", "tone") for case_id, *_ in CASES[:5]))
    evals.land("one", "mini", [*RIGHT[:4], ("c04", None, "expired")])
    evals.land(
        "one",
        "mini",
        [("c00", "correct"), ("c01", "incorrect"), ("c02", None, "failed"), ("c03", "well...")],
        "eval_judgements",
    )
    account = evals.grade("one", judgements="eval_judgements")["variants"]["mini"]
    assert (account["graded"], account["unanswered"], account["accuracy"]) == (2, 3, 0.2)
    assert evals.table("eval_grades", "case_id, score, answered, reason", "case_id") == [
        ("c00", 1.0, 1, "judge: because"),
        ("c01", 0.0, 1, "judge: because"),
        ("c02", 0.0, 0, "the judge's answer: failed"),
        ("c03", 0.0, 0, "the judge's verdict is neither correct nor incorrect"),
        ("c04", 0.0, 0, "expired"),
    ]
    ((cost,),) = evals.table("eval_summaries", "judge_cost_usd", "1")[:1]
    assert float(cost) == pytest.approx(0.003)


def test_an_older_run_is_never_held_against_a_later_one(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.land("two", "mini", WRONG_HALF)
    evals.grade("two")
    evals.accept("two")
    assert evals.grade("one")["variants"]["mini"]["baseline_run"] is None


def test_runs_that_were_not_accepted_are_nobodys_baseline_and_taking_back_works_in_sql(evals: Evals) -> None:
    evals.cases(*CASES)
    for run in ("one", "two", "three", "four"):
        evals.land(run, "mini", RIGHT)
        evals.grade(run)
        if run != "three":
            evals.accept(run)
    assert evals.grade("four")["variants"]["mini"]["baseline_run"] == "two"
    evals.warehouse.execute("DELETE FROM eval_accepted WHERE run = 'two'")
    assert evals.grade("four")["variants"]["mini"]["baseline_run"] == "one"


def test_accepting_again_changes_nothing(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    for variant in ("mini", "large"):
        evals.land("one", variant, RIGHT)
    evals.grade("one")
    assert evals.accept("one", variants=["mini"], note="looked at") == ["mini"]
    (before,) = evals.table("eval_accepted", order="1, 2")
    assert evals.accept("one") == ["large", "mini"]
    assert evals.table("eval_accepted", order="1, 2")[1] == before


def test_tables_go_where_the_prefix_says(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT)
    evals.grade("one", prefix="my evals; ")
    assert len(evals.table('"my evals; grades"')) == 20


def test_a_run_id_is_a_value_and_never_sql(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    name = "scheduled__2026-11-20T02:00:00+00:00'; DROP TABLE eval_cases; -- %s"
    evals.cases(*CASES)
    evals.land(name, "mini", RIGHT)
    evals.grade(name)
    evals.accept(name)
    assert {row[0] for row in evals.table("eval_grades", "run", "1")} == {name}
    assert gate(evals, name) == (1, 1, 1)


class TestWhatARunIsHeldAgainst:
    """The last accepted run, and those before it that it was the `same` as."""

    def nights(self, evals: Evals, **outputs: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """Each night graded, and accepted whatever came out."""
        evals.cases(*CASES)
        accounts = {}
        for run, answers in outputs.items():
            evals.land(run, "mini", answers)
            accounts[run] = evals.grade(run)["variants"]["mini"]
            evals.accept(run)
        return accounts

    def test_quiet_nights_are_one_baseline(self, evals: Evals) -> None:
        unsteady = [("c00", "?"), *RIGHT[1:]]
        accounts = self.nights(evals, a=RIGHT, b=RIGHT, c=unsteady, d=[("c01", "?"), *unsteady[::19]])
        assert [account["baseline_runs"] for account in accounts.values()] == [0, 1, 2, 3]
        assert {account["baseline_run"] for account in accounts.values()} == {None, "a", "b", "c"}
        rows = evals.table("eval_changes", "case_id, score_before, score_now, runs_before, right_before", "run, 1")
        # c00 was right in two nights of three when it was wrong again
        assert rows == [
            ("c00", 1.0, 0.0, 2, 2),
            ("c00", pytest.approx(2 / 3), 0.0, 3, 2),
            ("c01", 1.0, 0.0, 3, 3),
        ]
        # what was always right is named first
        assert accounts["d"]["regressions"] == ["c01", "c00"]

    def test_there_are_no_more_of_them_than_is_said(self, evals: Evals) -> None:
        self.nights(evals, a=RIGHT, b=RIGHT, c=RIGHT, d=RIGHT)
        evals.land("e", "mini", RIGHT)
        assert evals.grade("e", baseline_runs=2)["variants"]["mini"]["baseline_runs"] == 2
        with pytest.raises(InputError, match="baseline_runs is at least 1"):
            evals.grade("e", baseline_runs=0)

    def test_a_change_that_was_accepted_is_where_history_begins(self, evals: Evals) -> None:
        accounts = self.nights(evals, a=RIGHT, b=RIGHT, c=WRONG_HALF, d=WRONG_HALF, e=WRONG_HALF)
        assert [account["verdict"] for account in accounts.values()] == [
            "no_history",
            "same",
            "regressed",
            "same",
            "same",
        ]
        assert [account["baseline_runs"] for account in accounts.values()] == [0, 1, 2, 1, 2]

    def test_each_model_has_its_own_and_all_of_them_are_corrected_for(self, evals: Evals) -> None:
        evals.cases(*CASES)
        wrong = [(case_id, "?") for case_id, _ in RIGHT[:7]] + RIGHT[7:]
        for run, answers in (("a", RIGHT), ("b", wrong)):
            for variant in ("large", "mini", "nano")[: 3 if run == "b" else 2]:
                evals.land(run, variant, answers if variant == "mini" else RIGHT)
            evals.grade(run)
            evals.accept(run)
        rows = evals.table("eval_comparisons", "variant, p_value, p_corrected, verdict", "run, variant")[2:]
        assert rows == [
            ("large", 1.0, 1.0, "same"),
            ("mini", 2 / 128, 4 / 128, "same"),
            ("nano", None, None, "no_history"),
        ]
        assert evals.grade("b", alpha=0.04)["variants"]["mini"]["verdict"] == "regressed"


def test_the_gate_asks_for_the_run_it_stands_in_unless_told_otherwise(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("it's", "mini", RIGHT)
    evals.grade("it's")
    sql = Environment().from_string(gate_sql()).render(run_id="it's")
    assert evals.warehouse.execute(sql) == [(1, 1, 1)] == evals.warehouse.execute(gate_sql("it's"))


class TestBadInput:
    @pytest.mark.parametrize("prefix", ["my evals; ", "eval_'", 'a"b', "a..b", "."])
    def test_a_gate_takes_no_prefix_that_is_more_than_a_name(self, prefix: str) -> None:
        with pytest.raises(InputError, match="is none that a table can be named by"):
            gate_sql(prefix=prefix)

    @pytest.mark.parametrize(
        "sql",
        ["DELETE FROM eval_cases", "SELECT 1; DROP TABLE eval_cases", "WITH a AS (SELECT 1) DELETE FROM eval_cases"],
    )
    def test_cases_come_from_a_query_that_changes_nothing(self, evals_anywhere: Evals, sql: str) -> None:
        evals_anywhere.cases(*CASES)
        with pytest.raises(Exception, match=r"(?i)nothing was"):
            EvalCasesOperator(task_id="cases", cases_sql=sql).execute({})
        assert len(evals_anywhere.table("eval_cases")) == 20

    def test_a_run_that_was_not_graded_cannot_be_accepted(self, evals: Evals) -> None:
        with pytest.raises(AirflowFailException, match="the run 'one' cannot be accepted"):
            evals.accept("one")

    def test_a_variant_that_was_not_graded_cannot_be_accepted(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT)
        evals.grade("one")
        with pytest.raises(AirflowFailException, match="the variant large of the run 'one'"):
            evals.accept("one", variants=["large"])

    def test_a_gate_of_a_run_that_was_not_graded_fails(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT)
        evals.grade("one")
        assert gate(evals, "another") == (0, 1, 1)

    def test_a_run_without_answers_is_told(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT)
        with pytest.raises(AirflowFailException, match="the run has no answers"):
            evals.grade("two")

    def test_a_table_of_answers_that_is_not_there_is_told(self, evals_anywhere: Evals) -> None:
        evals_anywhere.cases(*CASES)
        with pytest.raises(AirflowFailException, match="There is no table 'eval_answers' with answers"):
            evals_anywhere.grade("one")

    def test_judged_cases_need_a_table_of_verdicts(self, evals: Evals) -> None:
        evals.cases(("a", "x", "judge", ""))
        evals.land("one", "mini", [("a", "y")])
        with pytest.raises(AirflowFailException, match="1 cases have the grader 'judge'"):
            evals.grade("one")
        with pytest.raises(AirflowFailException, match="There is no table 'eval_judgements' with verdicts"):
            evals.grade("one", judgements="eval_judgements")

    def test_cases_are_checked_before_anything_is_asked(self, evals_anywhere: Evals) -> None:
        check = EvalCasesOperator(task_id="cases")
        evals_anywhere.cases(*CASES, ("judged", None, "judge", "tone"))
        assert check.execute({}) == {"cases": 21, "judged": 1, "tags": {"even": 10, "sums": 20, "tone": 1}}
        evals_anywhere.cases(*CASES, CASES[0])
        with pytest.raises(AirflowFailException, match="case 'c00': this case_id is given more than once"):
            check.execute({})
        evals_anywhere.cases()
        with pytest.raises(AirflowFailException, match="There are no cases"):
            check.execute({})

    def test_a_table_that_lacks_a_column_is_told_with_what_mends_it(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT)
        evals.warehouse.execute("CREATE TABLE eval_grades (run text, variant text, case_id text)")
        with pytest.raises(AirflowFailException, match='ALTER TABLE "eval_grades" ADD COLUMN "score" REAL;'):
            evals.grade("one")

    @pytest.mark.parametrize("alpha", [0, 1, -0.1, 5])
    def test_alpha_is_a_share(self, alpha: float) -> None:
        with pytest.raises(InputError, match="alpha is a share"):
            EvalGradeOperator(task_id="grade", alpha=alpha)

    def test_variants_are_a_list(self, evals: Evals) -> None:
        with pytest.raises(AirflowFailException, match="variants is a list of names"):
            evals.grade("one", variants="mini")


def test_nothing_is_written_when_writing_fails_half_way(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", WRONG_HALF)
    evals.grade("one")
    before = written(evals)
    evals.cases(("c00", "77", "numeric", ""), *CASES[1:])
    evals.warehouse.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON eval_comparisons BEGIN SELECT RAISE(ABORT, 'no more room'); END"
    )
    with pytest.raises(Exception, match="nothing was written"):
        evals.grade("one")
    assert written(evals) == before
