"""Send the cases of `eval_cases` to each model every night, grade the answers, and fail if a model got worse.

Each run is compared with the last accepted runs. A model judges the answers that no rule can grade, in a second batch.
Requests without an answer in time are sent synchronously, on flex if possible, so that the report is ready at 07:00
UTC. Grading is free: to grade a run again, for example after fixing a case, clear the task `grade`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Param, task, task_group
from pydantic import BaseModel, Field

from airflow_provider_batch.operators.evals import (
    EvalAcceptOperator,
    EvalCasesOperator,
    EvalGateOperator,
    EvalGradeOperator,
    EvalReportOperator,
    texts_to_embed,
)
from airflow_provider_batch.task_groups import batch_job

MODEL: dict[str, Any] = {"type": "string", "pattern": r"^[\w.:/-]+$"}


class Verdict(BaseModel):
    """The judge's answer about one answer of a model."""

    reason: str
    #: by the grader of the case: one of the first two, or for `factuality` one of the others
    verdict: Literal["correct", "incorrect", "subset", "superset", "same", "disagree", "differ"]
    #: for `llm-rubric`
    score: Annotated[float, Field(ge=0, le=1)] | None


with DAG(
    "nightly_eval",
    # Without a start date and with this `run_immediately`, unpausing the DAG does not run last night's evaluation at
    # once.
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC", run_immediately=timedelta(0)),
    catchup=False,
    # It spends money every night, so a person has to start it.
    is_paused_upon_creation=True,
    max_active_runs=1,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={
        "models": Param(
            ["gpt-5-mini", "gpt-5-nano"], type="array", items=MODEL, minItems=1, maxItems=8, uniqueItems=True,
            title="Models", description="Models to evaluate, one per line",
        ),
        "judges": Param(
            ["gpt-5-mini"], type="array", items=MODEL, minItems=1, maxItems=5, uniqueItems=True,
            title="Judges",
            description="Models that judge the cases with the grader judge, llm-rubric or factuality; the majority of "
            "their verdicts decides",
        ),
        "verdicts": Param(
            1, type="integer", minimum=1, maximum=9,
            title="Verdicts of each judge",
            description="How often each judge judges an answer. Each verdict is paid for once, and kept as long as the "
            "answer stays the same",
        ),
        "embedding_model": Param(
            "text-embedding-3-small", **MODEL,
            title="Embedding model", description="Model for cases with the grader similar; unused without them",
        ),
        "repeats": Param(
            1, type="integer", minimum=1, maximum=20,
            title="Repeats", description="How often each case is sent to each model",
        ),
        "max_cost_usd": Param(
            5, type="number", exclusiveMinimum=0,
            title="Ceiling", description="US dollars for the whole run: all models, and the judges",
        ),
        "alpha": Param(
            0.04, type="number", exclusiveMinimum=0, maximum=0.2,
            title="False alarms", description="Share of unchanged runs that may be reported as a regression",
        ),
        "gate": Param(
            "fail", enum=["fail", "warn"],
            title="Gate", description="Whether a regression fails the run or warns; the run is not accepted either way",
        ),
    },
    tags=["batch", "example"],
) as dag:  # fmt: skip
    cases = EvalCasesOperator(task_id="cases")

    @task
    def models(params: dict[str, Any]) -> list[str]:
        """Return the models; each gets its own jobs."""
        return list(params["models"])

    @task_group
    def evaluate(model: str) -> Any:
        """Get the answers of one model, then let the judges grade those that no rule can grade."""
        # 07:00 is five hours after the start. The final pass ends by each deadline; half an hour after it is a reserve.
        common: dict[str, Any] = {
            "custom_id": "{{ row.id }}",
            "carry": ["case_id", "repeat"],
            "key": {"run": "{{ run_id }}", "variant": model},
            "max_run_cost_usd": dag.param("max_cost_usd"),
            "at_deadline": "sync",
            "max_failure_rate": 1.0,  # missing answers fail the gate instead of the landing
        }
        answers = batch_job.override(group_id="answer")(
            **common,
            sql="sql/eval_questions.sql",
            model=model,
            prompt="{{ row.input }}",
            deduplicate=False,  # otherwise all repeats get the same answer
            table="eval_answers",
            outlets=Asset("eval_answers"),
            deadline="{{ dag_run.start_date + macros.timedelta(hours=2, minutes=30) }}",
        )
        judgements = batch_job.override(group_id="judge")(
            **common,
            sql="sql/eval_to_judge.sql",
            model="{{ row.judge }}",
            system="prompts/judge.md",
            prompt="prompts/judge_question.md",
            output_schema=Verdict,
            reuse_from="eval_judgements",  # the same answer gets the same verdict every night, and is paid for once
            table="eval_judgements",
            outlets=Asset("eval_judgements"),
            columns=["verdict", "score", "reason"],
            deadline="{{ dag_run.start_date + macros.timedelta(hours=4, minutes=15) }}",
        )

        @task.openai_batch(
            custom_id="{{ row.id }}",
            key=common["key"],
            max_run_cost_usd=dag.param("max_cost_usd"),
            at_deadline="sync",
            max_failure_rate=1.0,
            endpoint="/v1/embeddings",
            model=dag.param("embedding_model"),
            prompt="{{ row.text }}",
            reuse_from="eval_embeddings",  # each text is paid for once
            table="eval_embeddings",
            outlets=Asset("eval_embeddings"),
            deadline="{{ dag_run.start_date + macros.timedelta(hours=3, minutes=15) }}",
        )
        def embed(run: str, variant: str) -> Iterator[dict[str, str]]:
            """Embed answers and expected texts for the cases with the grader `similar`, if there are any."""
            return texts_to_embed(run, variant)

        # Grading follows the judge, so the embeddings come before it. Without rows, a job sends nothing.
        answers >> embed("{{ run_id }}", model) >> judgements
        return judgements

    model_names = models()  # type: ignore[call-arg,misc]  # Airflow passes `params`
    cases >> model_names
    grade = EvalGradeOperator(
        task_id="grade",
        judgements="eval_judgements",
        embeddings="eval_embeddings",
        variants=dag.param("models"),  # type: ignore[arg-type]  # Airflow passes the value
        alpha=dag.param("alpha"),  # type: ignore[arg-type]  # Airflow passes the value
        outlets=[Asset("eval_summaries")],
        trigger_rule="all_done_min_one_success",  # a model that failed does not keep the others from being graded
    )
    report = EvalReportOperator(task_id="report", judgements="eval_judgements", embeddings="eval_embeddings")
    gate = EvalGateOperator(task_id="gate", action=dag.param("gate"))  # type: ignore[arg-type]  # Airflow passes the value
    evaluate.expand(model=model_names) >> grade >> report >> gate >> EvalAcceptOperator(task_id="accept")
