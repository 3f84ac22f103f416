"""Which texts of a run have to be embedded for the grader `similar`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from airflow_provider_batch.evals.graders.embeddings import embedded_part, text_id
from airflow_provider_batch.evals.store import EvalStore, load_cases
from airflow_provider_batch.operators.evals.grade import CASES_SQL
from airflow_provider_batch.warehouse.connect import sql_hook


def texts_to_embed(
    run: str,
    variant: str,
    *,
    cases_sql: str = CASES_SQL,
    answers: str = "eval_answers",
    grader_modules: Sequence[str] = (),
    warehouse_conn_id: str = "warehouse",
) -> Iterator[dict[str, str]]:
    """Yield the texts whose embeddings the grader `similar` compares: answers of a model, and what they should be.

    Use it in a function with `@task.openai_batch` and the endpoint `/v1/embeddings`. Each row has an `id`, which has to
    be the custom_id, and a `text`, cut at 6,000 characters. Equal texts are one row. If no case uses `similar`, there
    are no rows, and the answers are not read.

    :param run: id of the run.
    :param variant: name of the model whose answers are embedded.
    :param cases_sql: as passed to EvalGradeOperator, but not the name of a file.
    :param answers: results table with the answers.
    :param grader_modules: as passed to EvalGradeOperator.
    :param warehouse_conn_id: connection to read from.
    :raises InputError: if a case cannot be graded.
    """
    hook = sql_hook(warehouse_conn_id)
    cases = {case.case_id: case for case in load_cases(hook, cases_sql, grader_modules) if case.grader.needs_embeddings}
    yielded_ids: set[str] = set()
    for answer in EvalStore(hook, "eval_").answers(answers, run) if cases else ():
        case = cases.get(answer.case_id)
        if case is None or answer.variant != variant or answer.outcome != "succeeded":
            continue
        for text in case.grader.texts_to_embed(case, answer):
            identifier = text_id(text)
            if identifier not in yielded_ids:
                yielded_ids.add(identifier)
                yield {"id": identifier, "text": embedded_part(text)}
