"""Compare prompts, models and parameters on the same cases: accuracy, cost, and which answer a judge prefers.

The cases are those of `nightly_eval`. A variant has a name, a model, a system prompt and parameters of the request, and
answers every case in a job of its own. Then a judge sees the answers of each two variants next to each other, once in
each order, because judges tend to favour what they read first. The report shows all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from airflow.sdk import DAG, Asset, Param, task, task_group
from pydantic import BaseModel, Field

from airflow_provider_batch.operators.evals import (
    EvalCasesOperator,
    EvalGradeOperator,
    EvalReportOperator,
    texts_to_embed,
)
from airflow_provider_batch.task_groups import batch_job

NAME: dict[str, Any] = {"type": "string", "pattern": r"^[\w.:/-]+$"}
VARIANTS = [
    {"name": "plain", "model": "gpt-5-mini", "system": "", "body": {}},
    {"name": "careful", "model": "gpt-5-mini", "system": "Check your answer before you write it.", "body": {}},
]


class Verdict(BaseModel):
    """The judge's answer about one answer of a variant, as in `nightly_eval`."""

    reason: str
    verdict: Literal["correct", "incorrect", "subset", "superset", "same", "disagree", "differ"]
    score: Annotated[float, Field(ge=0, le=1)] | None


class Preference(BaseModel):
    """What the judge thinks of two answers to the same question."""

    reason: str
    preference: Literal["first", "second", "tie"]


with DAG(
    "compare_prompts",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={
        "variants": Param(
            VARIANTS, type="array", minItems=2, maxItems=8,
            items={
                "type": "object",
                "properties": {
                    "name": NAME, "model": NAME, "system": {"type": "string"}, "body": {"type": "object"},
                },
                "required": ["name", "model", "system", "body"],
                "additionalProperties": False,
            },
            title="Variants",
            description="A JSON list with an object for each variant: a name of your choice, the model, the system "
            "prompt (empty for none), and in body parameters of the request, such as reasoning_effort",
        ),
        "judge": Param(
            "gpt-5-mini", **NAME,
            title="Judge",
            description="Model that compares the answers, and grades the cases that no rule can grade",
        ),
        "max_cost_usd": Param(
            5, type="number", exclusiveMinimum=0,
            title="Ceiling", description="US dollars for the whole run: all variants, and the judge",
        ),
    },
    tags=["batch", "example"],
) as dag:  # fmt: skip
    cases = EvalCasesOperator(task_id="cases")

    @task
    def variants(params: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the variants; each gets its own job."""
        names = [variant["name"] for variant in params["variants"]]
        if len(set(names)) < len(names):
            raise ValueError(f"Each variant needs a name of its own, but the names are {', '.join(names)}.")
        return list(params["variants"])

    @task_group
    def evaluate(name: str, model: str, system: str, body: dict[str, Any]) -> Any:
        """Get the answers of one variant, then let the judge grade those that no rule can grade."""
        common: dict[str, Any] = {
            "custom_id": "{{ row.id }}",
            "carry": ["case_id", "repeat"],
            "key": {"run": "{{ run_id }}", "variant": name},
            "max_run_cost_usd": dag.param("max_cost_usd"),
        }
        answers = batch_job.override(group_id="answer")(
            **common,
            sql="SELECT case_id AS id, case_id, 1 AS repeat, input FROM eval_cases ORDER BY case_id",
            model=model,
            system=system,
            prompt="{{ row.input }}",
            body=body,
            table="eval_answers",
            outlets=Asset("eval_answers"),
        )
        judgements = batch_job.override(group_id="judge")(
            **common,
            sql="sql/eval_to_judge.sql",
            model=dag.param("judge"),
            system="prompts/judge.md",
            prompt="prompts/judge_question.md",
            output_schema=Verdict,
            reuse_from="eval_judgements",
            table="eval_judgements",
            outlets=Asset("eval_judgements"),
            columns=["verdict", "score", "reason"],
        )

        @task.openai_batch(
            custom_id="{{ row.id }}",
            key=common["key"],
            max_run_cost_usd=dag.param("max_cost_usd"),
            endpoint="/v1/embeddings",
            model="text-embedding-3-small",
            prompt="{{ row.text }}",
            reuse_from="eval_embeddings",
            table="eval_embeddings",
            outlets=Asset("eval_embeddings"),
        )
        def embed(run: str, variant: str) -> Iterator[dict[str, str]]:
            """Embed answers and expected texts for the cases with the grader `similar`, if there are any."""
            return texts_to_embed(run, variant)

        # Grading follows the judge, so the embeddings come before it. Without rows, a job sends nothing.
        answers >> embed("{{ run_id }}", name) >> judgements
        return judgements

    compare_answers = batch_job.override(group_id="compare_answers")(
        sql="sql/eval_pairs.sql",
        custom_id="{{ row.id }}",
        carry=["case_id", "first_variant", "second_variant"],
        key={"run": "{{ run_id }}"},
        model=dag.param("judge"),
        system="prompts/compare.md",
        prompt="prompts/compare_answers.md",
        output_schema=Preference,
        max_run_cost_usd=dag.param("max_cost_usd"),
        table="eval_preferences",
        outlets=Asset("eval_preferences"),
        columns=["preference", "reason"],
    )
    grade = EvalGradeOperator(
        task_id="grade",
        judgements="eval_judgements",
        embeddings="eval_embeddings",
        outlets=[Asset("eval_summaries")],
    )
    report = EvalReportOperator(
        task_id="report", judgements="eval_judgements", embeddings="eval_embeddings", preferences="eval_preferences"
    )
    names = variants()  # type: ignore[call-arg,misc]  # Airflow passes `params`
    cases >> names
    evaluate.expand_kwargs(names) >> compare_answers >> grade >> report
