"""Finding the job of a task instance, or the report that it wrote, on the API server."""

from __future__ import annotations

from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_batch.core.ledger.ledger import open_ledger
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
from airflow_provider_batch.evals.page import is_report, report_folder
from airflow_provider_batch.links.batch import LEDGER_KEY, REPORT_KEY
from airflow_provider_batch.plugins.page import FailureView, JobView, ShardView
from airflow_provider_batch.staging.layout import open_folder


def load_job_view(dag_id: str, run_id: str, task_id: str, map_index: int) -> JobView | None:
    """What is recorded of the job of a task instance, None when there is no record.

    The ledger is found by the address that the task left in XCom, and shown only if it is of a job of this very run: so
    nobody who may see one DAG is shown a job of another.

    `map_index` is -1 for a task that is not mapped. Raises BatchError when there is a record that cannot be read.
    """
    address = _left(LEDGER_KEY, dag_id, run_id, task_id, map_index)
    if not isinstance(address, str):
        return None
    ledger = open_ledger(open_folder(address))
    if ledger is None or (ledger.manifest.key.dag_id, ledger.manifest.key.run_id) != (dag_id, run_id):
        return None
    return _view(ledger.state(), ledger.folder.uri, task_id, map_index)


def load_report(dag_id: str, run_id: str, task_id: str, map_index: int) -> bytes | None:
    """The report that a task instance wrote, None when there is none.

    Its folder follows from the task instance alone, so nothing that a request or XCom says leads out of it.

    Raises BatchError if staging cannot be read.
    """
    name = _left(REPORT_KEY, dag_id, run_id, task_id, map_index)
    if not isinstance(name, str) or not is_report(name):
        return None
    return report_folder(dag_id, run_id, task_id, map_index).read(name)


def _left(key: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
    """What a task instance left in XCom under a key."""
    with create_session() as session:
        statement = XComModel.get_many(
            run_id=run_id, key=key, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1
        )
        found = session.scalars(statement).first()
        return XComModel.deserialize_value(found) if found is not None else None


def _view(state: JobState, address: str, task_id: str, map_index: int) -> JobView:
    manifest, landed = state.manifest, state.landed
    settled = [record.at for _, _, record in state.settled()]
    outcomes = landed.outcomes if landed else outcomes_so_far(state)
    return JobView(
        dag_id=manifest.key.dag_id,
        run_id=manifest.key.run_id,
        task_id=task_id,
        map_index=map_index,
        job_uid=manifest.job_uid,
        ledger=address,
        endpoint=manifest.endpoint,
        requests=manifest.requests,
        same=manifest.same,
        known=manifest.known,
        reuse_from=manifest.reuse_from,
        sealed_at=manifest.sealed_at,
        deadline=state.deadline,
        settled_at=max(settled) if settled and "pending" not in outcomes else None,
        outcomes=outcomes,
        shards=[_shard(shard) for shard in state.shards.values()],
        failures=[
            FailureView(outcome=reason.outcome, code=reason.code, message=reason.message, count=reason.rows)
            for reason in (landed.reasons if landed else [])
        ],
        estimate_low_usd=state.estimate.low_usd,
        estimate_high_usd=state.estimate.high_usd,
        cost_usd=float(landed.cost_usd) if landed and landed.cost_usd else None,
        standard_cost_usd=float(landed.standard_cost_usd) if landed and landed.standard_cost_usd else None,
        asked_again=landed.asked_again if landed else 0,
        asked_again_cost_usd=float(landed.asked_again_cost_usd) if landed and landed.asked_again_cost_usd else None,
    )


def _shard(shard: ShardState) -> ShardView:
    last = shard.last
    return ShardView(
        name=shard.shard.name,
        model=shard.shard.model,
        requests=shard.shard.requests,
        attempt=shard.shard.attempt,
        status=last.settled.status if last and last.settled else shard.phase.value,
        batch_id=(last.batch_id or None) if last else None,
    )
