"""The eval operators turn tables of cases and answers into grades, summaries and comparisons."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from jinja2 import Environment

from airflow_provider_batch.evals.tables import gate_sql
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.operators.evals import (
    EvalAcceptOperator,
    EvalCasesOperator,
    EvalGateOperator,
    EvalGradeOperator,
    EvalReportOperator,
)
from tests.evals.conftest import Evals

CASES = [(f"c{number:02}", str(number), "numeric", "sums,even" if number % 2 == 0 else "sums") for number in range(20)]
RIGHT_ANSWERS = [(case_id, expected) for case_id, expected, _, _ in CASES]
HALF_WRONG_ANSWERS = [
    (case_id, "77" if number < 10 else expected) for number, (case_id, expected) in enumerate(RIGHT_ANSWERS)
]


def grading_tables(evals: Evals) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything that grading wrote, except the times."""
    columns = {
        "eval_grades": "run, variant, case_id, repeat, grader, score, reason, tags, outcome, answered, case_sha256",
        "eval_summaries": "run, variant, tag, cases, answers, graded, correct, accuracy, low, high, cost_usd",
        "eval_comparisons": "run, variant, tag, baseline_run, better, worse, p_worse, p_better, smallest_drop, verdict",
        "eval_changes": "run, variant, case_id, baseline_run, change, score_before, score_now, right_before",
    }
    return {name: evals.table(name, selection) for name, selection in columns.items()}


def gate(evals: Evals, run: str, **options: Any) -> tuple[int, ...]:
    (row,) = evals.warehouse.execute(gate_sql(run, **options))
    return tuple(row)


def test_a_run_is_graded_summed_up_and_compared_with_the_last_accepted_run(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    evals.land("night-1", "mini", RIGHT_ANSWERS)
    first = evals.grade("night-1")["variants"]["mini"]
    assert first["accuracy"] == 1.0
    assert first["low"] == pytest.approx(0.8389, abs=1e-4)
    assert (first["verdict"], first["baseline_run"], first["cost_usd"]) == ("no_history", None, "0.02")
    assert gate(evals, "night-1") == (1, 1, 1)

    assert evals.accept("night-1", note="first") == ["mini"]
    evals.land("night-2", "mini", HALF_WRONG_ANSWERS)
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
    changes = evals.table("eval_changes", "run, case_id, change, score_before, score_now", "case_id")
    assert changes[0] == ("night-2", "c00", "worse", 1.0, 0.0)
    assert len(changes) == 10


def test_grading_a_run_again_writes_the_same_tables(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.land("one", "large", HALF_WRONG_ANSWERS)
    evals.grade("one")
    evals.accept("one")
    evals.land("two", "mini", HALF_WRONG_ANSWERS)
    evals.land("two", "large", RIGHT_ANSWERS)
    evals.grade("two")
    tables_before = grading_tables(evals)
    evals.grade("two")
    evals.grade("one")
    assert grading_tables(evals) == tables_before
    assert {row[-1] for row in tables_before["eval_comparisons"]} == {"no_history", "regressed", "improved", "same"}


def test_earlier_answers_can_be_graded_again_with_a_corrected_expected_value(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", [("c00", "5"), *RIGHT_ANSWERS[1:]])
    assert evals.grade("one")["variants"]["mini"]["accuracy"] == 0.95
    evals.cases(("c00", "5", "numeric", "sums"), *CASES[1:])
    assert evals.grade("one")["variants"]["mini"]["accuracy"] == 1.0


def test_an_answer_keeps_its_grade_if_its_question_has_changed_no_matter_how_often_the_run_is_graded(
    evals_anywhere: Evals,
) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    assert (evals.grade("one")["kept_cases"], evals.grade("one")["left_out_cases"]) == (0, 0)
    tables_before = grading_tables(evals)
    evals.cases(("c00", "77", "numeric", "", "Another question?"), *CASES[2:])
    for _ in range(2):
        result = evals.grade("one")
        assert (result["cases"], result["kept_cases"], result["left_out_cases"]) == (19, 2, 0)
        assert result["variants"]["mini"]["accuracy"] == 1.0
        assert grading_tables(evals) == tables_before


def test_a_run_that_was_cleared_and_sent_again_gets_new_grades_even_if_its_question_has_changed(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.grade("one")
    evals.cases(("c00", "77", "numeric", "", "Another question?"), *CASES[1:])
    evals.land("one", "mini", RIGHT_ANSWERS, sealed_now=True)
    result = evals.grade("one")
    assert (result["kept_cases"], result["variants"]["mini"]["accuracy"]) == (0, 0.95)


def test_an_answer_whose_case_was_removed_before_grading_is_left_out(evals: Evals) -> None:
    evals.cases(*CASES[2:])
    evals.land("one", "mini", RIGHT_ANSWERS)
    result = evals.grade("one")
    assert (result["left_out_cases"], result["variants"]["mini"]["cases"]) == (2, 18)
    evals.cases(("other", "1", "numeric", ""))
    evals.land("two", "mini", RIGHT_ANSWERS)
    with pytest.raises(AirflowFailException, match="answers to 20 cases, but cases_sql returns none of these cases"):
        evals.grade("two")


def test_new_removed_and_changed_cases_are_not_compared(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.grade("one")
    evals.accept("one")
    new_cases = [("c00", "999", "numeric", ""), *CASES[1:19], ("new", "1", "exact", "")]
    evals.cases(*new_cases)
    evals.land("two", "mini", [(case_id, "wrong") for case_id, *_ in [*CASES[:19], ("new",)]])
    result = evals.grade("two")["variants"]["mini"]
    assert result["worse"] == 18
    assert "c00" not in result["regressions"]
    (row,) = evals.warehouse.execute("SELECT cases, left_out FROM eval_comparisons WHERE run = 'two' AND tag = ''")
    assert row == (18, 2)
    assert result["edited"] == ["c00"]


def test_an_outage_lowers_the_accuracy_and_closes_the_gate_but_is_not_a_regression(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.grade("one")
    evals.accept("one")
    evals.land("two", "mini", [(case_id, None, "expired") for case_id, _ in RIGHT_ANSWERS[:15]] + RIGHT_ANSWERS[15:])
    result = evals.grade("two")["variants"]["mini"]
    assert (result["unanswered"], result["graded"], result["accuracy"]) == (15, 5, 0.25)
    assert (result["verdict"], result["worse"]) == ("same", 0)
    assert gate(evals, "two") == (1, 0, 1)
    assert gate(evals, "two", max_unanswered=0.75) == (1, 1, 1)


def test_refused_and_cut_off_answers_are_wrong(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.grade("one")
    evals.accept("one")
    outcomes = ["refused", "incomplete", "invalid_output"] * 4
    evals.land(
        "two",
        "mini",
        [(*pair, outcome) for pair, outcome in zip(RIGHT_ANSWERS, outcomes, strict=False)] + RIGHT_ANSWERS[12:],
    )
    result = evals.grade("two")["variants"]["mini"]
    assert (result["unanswered"], result["worse"], result["verdict"]) == (0, 12, "regressed")
    assert {row[0] for row in evals.table("eval_grades", "reason", "1") if row[0] in outcomes} == set(outcomes)


def test_an_expected_model_without_any_answers_is_unanswered(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    result = evals.grade("one", variants=["mini", "large"])
    assert result["variants"]["large"]["unanswered"] == 20
    assert gate(evals, "one") == (1, 0, 1)


def test_with_repeats_accuracy_and_interval_count_cases(evals: Evals) -> None:
    evals.cases(*CASES)
    repeated_answers = [
        (case_id, expected, "succeeded", repeat) for case_id, expected in RIGHT_ANSWERS for repeat in (1, 2, 3)
    ]
    evals.land("one", "mini", repeated_answers)
    result = evals.grade("one")["variants"]["mini"]
    assert (result["cases"], result["answers"]) == (20, 60)
    assert result["low"] == pytest.approx(0.8389, abs=1e-4)
    evals.accept("one")
    wrong_answers = {("c00", 1), ("c00", 2), ("c01", 3)}
    evals.land("two", "mini", [(c, "-1" if (c, n) in wrong_answers else e, o, n) for c, e, o, n in repeated_answers])
    result = evals.grade("two")["variants"]["mini"]
    assert result["accuracy"] == pytest.approx(57 / 60)
    assert result["difference"] == pytest.approx(-3 / 60)
    assert (result["pass_any"], result["pass_majority"]) == (1, pytest.approx(19 / 20))
    # wrong most of the time; c01 is still right most of the time
    assert result["regressions"] == ["c00"]


def test_verdicts_are_read_from_the_table_of_judgements(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*((case_id, "friendly", "judge", "tone") for case_id, *_ in CASES[:5]))
    evals.land("one", "mini", [*RIGHT_ANSWERS[:4], ("c04", None, "expired")])
    evals.land(
        "one",
        "mini",
        [("c00", "correct"), ("c01", "incorrect"), ("c02", None, "failed"), ("c03", "well...")],
        "eval_judgements",
    )
    result = evals.grade("one", judgements="eval_judgements")["variants"]["mini"]
    assert (result["graded"], result["unanswered"], result["accuracy"]) == (2, 3, 0.2)
    assert evals.table("eval_grades", "case_id, score, answered, reason", "case_id") == [
        ("c00", 1.0, 1, "judge: because"),
        ("c01", 0.0, 1, "judge: because"),
        ("c02", 0.0, 0, "the judge's answer: failed"),
        ("c03", 0.0, 0, "the judge's verdict has no meaning for its grader: well..."),
        ("c04", 0.0, 0, "expired"),
    ]
    ((cost,),) = evals.table("eval_summaries", "judge_cost_usd", "1")[:1]
    assert float(cost) == pytest.approx(0.003)


def test_the_majority_of_several_judges_decides(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(("c00", "friendly", "judge", "tone"), ("c01", "friendly", "judge", "tone"))
    evals.land("one", "mini", RIGHT_ANSWERS[:2])
    for judge, verdicts in (("", "correct incorrect"), ("@b", "incorrect incorrect"), ("@c", "correct correct")):
        rows = [(case_id, verdict) for case_id, verdict in zip(("c00", "c01"), verdicts.split(), strict=True)]
        evals.land("one", "mini", rows, "eval_judgements", suffix=judge)
    evals.grade("one", judgements="eval_judgements")
    assert evals.table("eval_grades", "case_id, passed, reason", "1") == [
        ("c00", 1, "2 of 3 verdicts call it right: because"),
        ("c01", 0, "1 of 3 verdicts call it right: because"),
    ]
    ((cost,),) = evals.table("eval_summaries", "judge_cost_usd", "1")[:1]
    assert float(cost) == pytest.approx(0.006)


def test_a_partial_score_counts_in_the_accuracy_and_an_answer_that_passed_counts_as_right(
    evals_anywhere: Evals,
) -> None:
    evals = evals_anywhere
    graders = '["is-json", {"grader": "json:n", "expected": 1, "weight": 2}, {"threshold": 0.6}]'
    evals.cases(("a", "abcd", "levenshtein:0.7", ""), ("b", None, graders, ""), ("c", None, graders, ""))
    evals.land("one", "mini", [("a", "abce"), ("b", '{"n": 2}'), ("c", '```\n{"n": 1}\n```')])
    result = evals.grade("one")["variants"]["mini"]
    assert result["accuracy"] == pytest.approx((0.75 + 1 / 3 + 2 / 3) / 3)
    assert evals.table("eval_summaries", "cases, correct, graded", "1") == [(3, 2, 3)]
    assert evals.table("eval_grades", "case_id, passed, reason", "1")[1:] == [
        ("b", 0, "1 of 2 graders passed, score 0.333 with a threshold of 0.6; json:n: different value: '2'"),
        (
            "c",
            1,
            "1 of 2 graders passed, score 0.667 with a threshold of 0.6; is-json: not JSON: '``` {\"n\": 1} ```'",
        ),
    ]
    tables_before = grading_tables(evals)
    evals.cases(("b", None, graders, ""), ("c", None, graders, "", "Another question?"))
    evals.grade("one")
    assert grading_tables(evals) == tables_before


def test_a_function_grades_answers_only_if_the_author_of_the_dag_lists_its_module(evals: Evals) -> None:
    module = "tests.evals.graders_of_a_company"
    evals.cases(("a", None, f"python:{module}:look_up", ""))
    evals.land("one", "mini", [("a", "half")])
    with pytest.raises(AirflowFailException, match=r"case 'a': the function .* may not be called"):
        EvalCasesOperator(task_id="cases").execute({})
    assert EvalCasesOperator(task_id="cases", grader_modules=[module]).execute({})["cases"] == 1
    with pytest.raises(AirflowFailException, match="may not be called"):
        evals.grade("one")
    assert evals.grade("one", grader_modules=module)["variants"]["mini"]["accuracy"] == 0.5
    evals.land("two", "mini", [("a", "unknown")])
    with pytest.raises(AirflowFailException, match=r"case 'a': the function .* raised KeyError"):
        evals.grade("two", grader_modules=[module])


def test_a_run_is_never_compared_with_a_later_one(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.land("two", "mini", HALF_WRONG_ANSWERS)
    evals.grade("two")
    evals.accept("two")
    assert evals.grade("one")["variants"]["mini"]["baseline_run"] is None


def test_only_accepted_runs_become_a_baseline_and_sql_can_withdraw_one(evals: Evals) -> None:
    evals.cases(*CASES)
    for run in ("one", "two", "three", "four"):
        evals.land(run, "mini", RIGHT_ANSWERS)
        evals.grade(run)
        if run != "three":
            evals.accept(run)
    assert evals.grade("four")["variants"]["mini"]["baseline_run"] == "two"
    evals.warehouse.execute("DELETE FROM eval_accepted WHERE run = 'two'")
    assert evals.grade("four")["variants"]["mini"]["baseline_run"] == "one"


def test_accepting_a_run_twice_changes_nothing(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    evals.cases(*CASES)
    for variant in ("mini", "large"):
        evals.land("one", variant, RIGHT_ANSWERS)
    evals.grade("one")
    assert evals.accept("one", variants=["mini"], note="looked at") == ["mini"]
    (row,) = evals.table("eval_accepted", order="1, 2")
    assert evals.accept("one") == ["large", "mini"]
    assert evals.table("eval_accepted", order="1, 2")[1] == row


def test_the_prefix_names_the_tables(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", RIGHT_ANSWERS)
    evals.grade("one", prefix="my evals; ")
    assert len(evals.table('"my evals; grades"')) == 20


def test_a_run_id_is_never_executed_as_sql(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    name = "scheduled__2026-11-20T02:00:00+00:00'; DROP TABLE eval_cases; -- %s"
    evals.cases(*CASES)
    evals.land(name, "mini", RIGHT_ANSWERS)
    evals.grade(name)
    evals.accept(name)
    assert {row[0] for row in evals.table("eval_grades", "run", "1")} == {name}
    assert gate(evals, name) == (1, 1, 1)


class TestBaseline:
    """A run is compared with the last accepted run, and with those before it that were the `same`."""

    def accept_nights(self, evals: Evals, **outputs: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """Grade each night and accept it, regardless of the verdict."""
        evals.cases(*CASES)
        results = {}
        for run, answers in outputs.items():
            evals.land(run, "mini", answers)
            results[run] = evals.grade(run)["variants"]["mini"]
            evals.accept(run)
        return results

    def test_nights_without_a_change_form_one_baseline(self, evals: Evals) -> None:
        unsteady = [("c00", "?"), *RIGHT_ANSWERS[1:]]
        results = self.accept_nights(
            evals, a=RIGHT_ANSWERS, b=RIGHT_ANSWERS, c=unsteady, d=[("c01", "?"), *unsteady[::19]]
        )
        assert [result["baseline_runs"] for result in results.values()] == [0, 1, 2, 3]
        assert {result["baseline_run"] for result in results.values()} == {None, "a", "b", "c"}
        rows = evals.table("eval_changes", "case_id, score_before, score_now, runs_before, right_before", "run, 1")
        # c00 was right in two nights of three when it was wrong again
        assert rows == [
            ("c00", 1.0, 0.0, 2, 2),
            ("c00", pytest.approx(2 / 3), 0.0, 3, 2),
            ("c01", 1.0, 0.0, 3, 3),
        ]
        # the case that was always right comes first
        assert results["d"]["regressions"] == ["c01", "c00"]

    def test_baseline_runs_limits_the_number_of_runs(self, evals: Evals) -> None:
        self.accept_nights(evals, a=RIGHT_ANSWERS, b=RIGHT_ANSWERS, c=RIGHT_ANSWERS, d=RIGHT_ANSWERS)
        evals.land("e", "mini", RIGHT_ANSWERS)
        assert evals.grade("e", baseline_runs=2)["variants"]["mini"]["baseline_runs"] == 2
        with pytest.raises(InputError, match="baseline_runs: Expected a whole number of at least 1"):
            evals.grade("e", baseline_runs=0)

    def test_an_accepted_change_starts_a_new_history(self, evals: Evals) -> None:
        results = self.accept_nights(
            evals, a=RIGHT_ANSWERS, b=RIGHT_ANSWERS, c=HALF_WRONG_ANSWERS, d=HALF_WRONG_ANSWERS, e=HALF_WRONG_ANSWERS
        )
        assert [result["verdict"] for result in results.values()] == [
            "no_history",
            "same",
            "regressed",
            "same",
            "same",
        ]
        assert [result["baseline_runs"] for result in results.values()] == [0, 1, 2, 1, 2]

    def test_runs_before_an_accepted_change_only_say_how_steady_each_case_is(self, evals: Evals) -> None:
        results = self.accept_nights(
            evals, a=RIGHT_ANSWERS, b=RIGHT_ANSWERS, c=HALF_WRONG_ANSWERS, d=HALF_WRONG_ANSWERS
        )
        assert [result["older_runs"] for result in results.values()] == [0, 0, 0, 2]
        evals.land("e", "mini", [*HALF_WRONG_ANSWERS[:19], ("c19", "?")])
        result = evals.grade("e")["variants"]["mini"]
        assert (result["baseline_runs"], result["older_runs"]) == (2, 2)
        # c19 was right in all four runs; its score before is that since the change
        rows = evals.table("eval_changes", "case_id, score_before, runs_before, right_before", "1")
        assert rows[-1] == ("c19", 1.0, 4, 4)
        assert [row[0] for row in evals.table("eval_comparisons", "DISTINCT older_runs", "1")] == [0, 2]

    def test_older_runs_count_towards_the_maximum(self, evals: Evals) -> None:
        self.accept_nights(evals, a=RIGHT_ANSWERS, b=RIGHT_ANSWERS, c=HALF_WRONG_ANSWERS)
        evals.land("d", "mini", HALF_WRONG_ANSWERS)
        result = evals.grade("d", baseline_runs=2)["variants"]["mini"]
        assert (result["baseline_runs"], result["older_runs"]) == (1, 1)

    def test_each_model_has_its_own_baseline_and_p_values_are_corrected_for_all_models(self, evals: Evals) -> None:
        evals.cases(*CASES)
        seven_wrong = [(case_id, "?") for case_id, _ in RIGHT_ANSWERS[:7]] + RIGHT_ANSWERS[7:]
        for run, answers in (("a", RIGHT_ANSWERS), ("b", seven_wrong)):
            for variant in ("large", "mini", "nano")[: 3 if run == "b" else 2]:
                evals.land(run, variant, answers if variant == "mini" else RIGHT_ANSWERS)
            evals.grade(run)
            evals.accept(run)
        rows = evals.warehouse.execute(
            "SELECT variant, p_worse, verdict FROM eval_comparisons WHERE run = 'b' AND tag = '' ORDER BY variant"
        )
        assert [tuple(row) for row in rows] == [
            ("large", 1.0, "same"),
            ("mini", 2 / 128, "regressed"),
            ("nano", None, "no_history"),
        ]
        assert evals.grade("b", alpha=0.01)["variants"]["mini"]["verdict"] == "same"


class TestGate:
    """The gate says what happened."""

    def nights(self, evals: Evals, first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
        """Accept three nights with the first answers, and grade a night with the second."""
        for run in ("a", "b", "c"):
            evals.land(run, "mini", first)
            evals.grade(run)
            evals.accept(run)
        evals.land("d", "mini", second)
        evals.grade("d")

    def message(self, run: str) -> str:
        with pytest.raises(AirflowFailException) as caught:
            EvalGateOperator(task_id="gate", run=run).execute({})
        return str(caught.value)

    def test_it_names_the_tag_that_regressed(self, evals_anywhere: Evals) -> None:
        evals = evals_anywhere
        cases = [(f"c{number:02}", "1", "exact", "dates" if number < 10 else "") for number in range(60)]
        evals.cases(*cases)
        right = [(case_id, "1") for case_id, *_ in cases]
        self.nights(evals, right, [(case_id, "2") for case_id, _ in right[:6]] + right[6:])
        message = self.message("d")
        assert "mini regressed by 10.0 points since run c: of 60 cases, 6 got worse and 0 got better" in message
        assert "The tag dates regressed by 60.0 points: of 10 cases, 6 got worse and 0 got better" in message
        assert "Worse: c00, c01, c02, c03, c04, c05." in message

    def test_cases_that_broke_close_it_even_if_as_many_others_were_fixed(self, evals: Evals) -> None:
        cases = [(f"c{number:02}", "1", "exact", "") for number in range(60)]
        evals.cases(*cases)
        first = [(case_id, "1" if number < 30 else "2") for number, (case_id, *_) in enumerate(cases)]
        second = [
            (case_id, "2" if answer == "1" and number < 10 else answer)
            for number, (case_id, answer) in enumerate(first)
        ]
        second[50:] = [(case_id, "1") for case_id, _ in second[50:]]
        self.nights(evals, first, second)
        assert evals.table("eval_comparisons", "verdict", "run")[-1] == ("mixed",)
        assert gate(evals, "d") == (1, 1, 0)
        message = self.message("d")
        assert "mini broke cases that were right since run c: of 60 cases, 10 got worse and 10 got better" in message
        assert "Worse: c00, c01" in message
        assert "Better: c50, c51" in message

    def test_it_names_wrong_cases_that_were_edited(self, evals: Evals, capsys: pytest.CaptureFixture[str]) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", HALF_WRONG_ANSWERS)
        evals.grade("one")
        evals.accept("one")
        evals.cases(("c00", "0", "exact", ""), ("c01", "1", "exact", ""), *CASES[2:])
        evals.land("two", "mini", HALF_WRONG_ANSWERS)
        evals.grade("two")
        EvalGateOperator(task_id="gate", run="two").execute({})
        assert "mini: 2 cases that were wrong were edited since, and not compared: c00, c01." in capsys.readouterr().out
        assert evals.table("eval_changes", "case_id, change", "1") == [("c00", "edited"), ("c01", "edited")]

    def test_a_case_that_was_fixed_after_it_failed_is_named_when_the_run_is_graded_again(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT_ANSWERS)
        evals.grade("one")
        evals.accept("one")
        evals.land("two", "mini", [("c00", "5"), *RIGHT_ANSWERS[1:]])
        assert evals.grade("two")["variants"]["mini"]["edited"] == []
        evals.cases(("c00", "5", "numeric", ""), *CASES[1:])
        for _ in range(2):
            assert evals.grade("two")["variants"]["mini"]["edited"] == ["c00"]


def test_the_gate_checks_the_current_dag_run_by_default(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("it's", "mini", RIGHT_ANSWERS)
    evals.grade("it's")
    sql = Environment().from_string(gate_sql()).render(run_id="it's")
    assert evals.warehouse.execute(sql) == [(1, 1, 1)] == evals.warehouse.execute(gate_sql("it's"))


class TestInvalidInput:
    @pytest.mark.parametrize("prefix", ["my evals; ", "eval_'", 'a"b', "a..b", "."])
    def test_a_gate_rejects_a_prefix_that_needs_quotation_marks(self, prefix: str) -> None:
        with pytest.raises(InputError, match="does not work in gate_sql"):
            gate_sql(prefix=prefix)

    @pytest.mark.parametrize(
        "sql",
        ["DELETE FROM eval_cases", "SELECT 1; DROP TABLE eval_cases", "WITH a AS (SELECT 1) DELETE FROM eval_cases"],
    )
    def test_the_query_of_the_cases_must_not_change_anything(self, evals_anywhere: Evals, sql: str) -> None:
        evals_anywhere.cases(*CASES)
        with pytest.raises(Exception, match=r"(?i)nothing was"):
            EvalCasesOperator(task_id="cases", cases_sql=sql).execute({})
        assert len(evals_anywhere.table("eval_cases")) == 20

    def test_a_run_that_was_not_graded_cannot_be_accepted(self, evals: Evals) -> None:
        with pytest.raises(AirflowFailException, match="Run 'one' cannot be accepted"):
            evals.accept("one")

    def test_a_variant_that_was_not_graded_cannot_be_accepted(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT_ANSWERS)
        evals.grade("one")
        with pytest.raises(AirflowFailException, match="large of run 'one' cannot be accepted"):
            evals.accept("one", variants=["large"])

    def test_an_ungraded_run_does_not_pass_the_gate(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT_ANSWERS)
        evals.grade("one")
        assert gate(evals, "another") == (0, 1, 1)

    def test_grading_a_run_without_answers_raises_an_error(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT_ANSWERS)
        with pytest.raises(AirflowFailException, match="the run has no answers"):
            evals.grade("two")

    def test_a_missing_answers_table_raises_an_error(self, evals_anywhere: Evals) -> None:
        evals_anywhere.cases(*CASES)
        with pytest.raises(AirflowFailException, match="The table 'eval_answers' with the answers does not exist"):
            evals_anywhere.grade("one")

    def test_cases_with_a_judge_need_a_table_of_verdicts(self, evals: Evals) -> None:
        evals.cases(("a", "x", "judge", ""))
        evals.land("one", "mini", [("a", "y")])
        with pytest.raises(AirflowFailException, match="1 case has a grader by a judge"):
            evals.grade("one")
        with pytest.raises(AirflowFailException, match="The table 'eval_judgements' with the verdicts does not exist"):
            evals.grade("one", judgements="eval_judgements")

    def test_cases_are_checked_before_anything_is_sent(self, evals_anywhere: Evals) -> None:
        check = EvalCasesOperator(task_id="cases")
        evals_anywhere.cases(*CASES, ("judged", None, "judge", "tone"))
        assert check.execute({}) == {"cases": 21, "judged": 1, "tags": {"even": 10, "sums": 20, "tone": 1}}
        evals_anywhere.cases(*CASES, CASES[0])
        with pytest.raises(AirflowFailException, match="case 'c00': this case_id appears more than once"):
            check.execute({})
        evals_anywhere.cases()
        with pytest.raises(AirflowFailException, match="There are no cases"):
            check.execute({})

    def test_an_error_about_a_missing_column_includes_the_statement_that_adds_it(self, evals: Evals) -> None:
        evals.cases(*CASES)
        evals.land("one", "mini", RIGHT_ANSWERS)
        evals.warehouse.execute("CREATE TABLE eval_grades (run text, variant text, case_id text)")
        with pytest.raises(AirflowFailException, match='ALTER TABLE "eval_grades" ADD COLUMN "score" REAL;'):
            evals.grade("one")

    @pytest.mark.parametrize("alpha", [0, 1, -0.1, 5])
    def test_alpha_must_be_a_share(self, alpha: float) -> None:
        with pytest.raises(InputError, match="alpha: Expected a share between 0 and 1"):
            EvalGradeOperator(task_id="grade", alpha=alpha)

    @pytest.mark.parametrize("variants", [5, ["mini", 5], {"mini": 1}, "mini, large"])
    def test_variants_must_be_names(self, variants: Any) -> None:
        with pytest.raises(InputError, match="variants: Expected a list"):
            EvalGradeOperator(task_id="grade", variants=variants)

    @pytest.mark.parametrize(
        ("operator", "arguments", "message"),
        [
            (EvalCasesOperator, {"cases_sql": ""}, "cases_sql: Expected text that is not empty"),
            (EvalCasesOperator, {"conn_id": "x"}, "EvalCasesOperator has no argument 'conn_id'"),
            (EvalCasesOperator, {"grader_modules": [5]}, "grader_modules: Expected a list of names"),
            (EvalGradeOperator, {"answers": ["a"]}, "answers: Expected text"),
            (EvalGradeOperator, {"baseline_runs": "many"}, "baseline_runs: Expected a whole number"),
            (EvalGateOperator, {"action": "stop"}, "action: Expected 'fail' or 'warn', got 'stop'"),
            (EvalGateOperator, {"max_unanswered": "2 %"}, "max_unanswered: Expected a number from 0 to 1"),
            (EvalReportOperator, {"warehouse_conn_id": 5}, "warehouse_conn_id: Expected text"),
            (EvalAcceptOperator, {"note": {"a": 1}}, "note: Expected text"),
        ],
    )
    def test_wrong_arguments_are_refused_when_the_dag_is_parsed(
        self, operator: Any, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            operator(task_id="task", **arguments)


def test_a_failed_write_leaves_the_tables_unchanged(evals: Evals) -> None:
    evals.cases(*CASES)
    evals.land("one", "mini", HALF_WRONG_ANSWERS)
    evals.grade("one")
    tables_before = grading_tables(evals)
    evals.cases(("c00", "77", "numeric", ""), *CASES[1:])
    evals.warehouse.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON eval_comparisons BEGIN SELECT RAISE(ABORT, 'no more room'); END"
    )
    with pytest.raises(Exception, match="Nothing was written"):
        evals.grade("one")
    assert grading_tables(evals) == tables_before
