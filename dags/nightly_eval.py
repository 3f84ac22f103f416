"""Every night each model answers the cases of `eval_cases`; what got worse since the last accepted run fails the gate.

Answers that no rule can grade are judged by a model, in a second batch. What did not come in time is asked at once, so
that the report is there at 07:00. Grading is free: clear `grade` to grade a run again, say after mending a case.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from airflow.sdk import DAG, Param, task, task_group
from pydantic import BaseModel

from airflow_provider_batch.operators.evals import (
    EvalAcceptOperator,
    EvalCasesOperator,
    EvalGateOperator,
    EvalGradeOperator,
    EvalReportOperator,
)
from airflow_provider_batch.task_groups import batch_job

MODEL: dict[str, Any] = {"type": "string", "pattern": r"^[\w.:/-]+$"}


class Verdict(BaseModel):
    """What the judge says of one answer."""

    reason: str
    verdict: Literal["correct", "incorrect"]


with DAG(
    "nightly_eval",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    params={
        "models": Param(
            ["gpt-5-mini", "gpt-5-nano"], type="array", items=MODEL, minItems=1, maxItems=8, uniqueItems=True,
            title="Models", description="Who is asked, one per line",
        ),
        "judge": Param("gpt-5-mini", **MODEL, title="Judge", description="Who judges the cases with the grader judge"),
        "repeats": Param(
            1, type="integer", minimum=1, maximum=20, title="Repeats", description="How often each case is asked"
        ),
        "max_cost_usd": Param(
            5, type="number", exclusiveMinimum=0,
            title="Ceiling", description="US dollars for each model, and again for judging it",
        ),
        "gate": Param(
            "fail", enum=["fail", "warn"],
            title="Gate", description="What a regression does to the run; it is not accepted either way",
        ),
    },
    tags=["batch", "example"],
) as dag:  # fmt: skip
    cases = EvalCasesOperator(task_id="cases")

    @task
    def models(params: dict[str, Any]) -> list[str]:
        """One job for each."""
        return list(params["models"])

    @task_group
    def evaluate(model: str) -> Any:
        """Ask one model, then let its answers be judged."""
        # 07:00 is five hours after the start; asking at once what is left may take half an hour in each of both parts
        common: dict[str, Any] = {
            "custom_id": "{{ row.id }}",
            "carry": ["case_id", "repeat"],
            "key": {"run": "{{ run_id }}", "variant": model},
            "max_cost_usd": dag.param("max_cost_usd"),
            "at_deadline": "sync",
            "max_failure_rate": 1.0,  # what is missing is for the gate to judge
        }
        asked = batch_job.override(group_id="ask")(
            **common,
            sql="sql/eval_questions.sql",
            model=model,
            prompt="{{ row.input }}",
            deduplicate=False,  # else all repeats would get one answer
            table="eval_answers",
            deadline="{{ dag_run.start_date + macros.timedelta(hours=2, minutes=30) }}",
        )
        judged = batch_job.override(group_id="judge")(
            **common,
            sql="sql/eval_to_judge.sql",
            model=dag.param("judge"),
            system="prompts/judge.md",
            prompt="prompts/judge_question.md",
            output_schema=Verdict,
            table="eval_judgements",
            columns={"verdict": "verdict", "reason": "reason"},
            deadline="{{ dag_run.start_date + macros.timedelta(hours=4, minutes=15) }}",
        )
        asked >> judged
        return judged

    asked = models()  # type: ignore[call-arg,misc]  # Airflow passes `params`
    cases >> asked
    grade = EvalGradeOperator(
        task_id="grade",
        judgements="eval_judgements",
        variants=dag.param("models"),  # type: ignore[arg-type]  # Airflow passes the value
        trigger_rule="all_done_min_one_success",  # a model that could not be asked does not hide the others
    )
    report = EvalReportOperator(task_id="report", judgements="eval_judgements")
    gate = EvalGateOperator(task_id="gate", action=dag.param("gate"))  # type: ignore[arg-type]  # Airflow passes the value
    evaluate.expand(model=asked) >> grade >> report >> gate >> EvalAcceptOperator(task_id="accept")
