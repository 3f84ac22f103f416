"""A process that drives sealed jobs with real runners in forks of itself, which can die at any step.

    python -m tests.chaos.budget_worker

It works like `tests.chaos.worker`, without DAG runs: each fork drives one job until nothing can be done any more.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from tests.chaos.worker import LOOK_UP_AFTER, Strike, Striker, serve, watch

#: a wait that lasts longer is for the next period of a budget
LONG_WAIT = timedelta(seconds=30)


class BudgetStart(msgspec.Struct, frozen=True):
    """One worker of a job."""

    environment: dict[str, str]
    #: address of the job's folder
    ledger: str
    #: file that is written once nothing can be done any more
    result: str
    log: str
    strike: Strike | None = None
    #: after this many seconds, the worker ends without a result
    seconds: float = 60


def run(start: BudgetStart) -> None:
    """Drive the job until it has ended, or waits for the next period of a budget."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle import conditions, consequences, steps
    from airflow_provider_batch.core.lifecycle.steps import Finish, Policy, Wait
    from airflow_provider_batch.exceptions import ProviderError
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.staging.layout import open_folder
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.runner import Runner

    logging.basicConfig(level=logging.INFO, force=True)
    for module in (steps, conditions, consequences):
        vars(module)["LOOK_UP_AFTER"] = LOOK_UP_AFTER
    watch(Striker(start.strike, Path(f"{start.result}.hit")), LocalFolder)
    end = time.monotonic() + start.seconds
    while time.monotonic() < end:
        ledger = open_ledger(open_folder(start.ledger))
        assert ledger is not None
        runner = Runner(
            ledger, BatchHook(), Policy(max_attempts=6, backoff=timedelta(seconds=0.1)), logging.getLogger("chaos")
        )
        try:
            pause = runner.run(runner.observe())
        except ProviderError as error:
            # the task fails, and Airflow retries it
            logging.warning("retry: %s", error)
            continue
        is_long = (
            isinstance(pause, Wait)
            and not pause.batch_ids
            and (pause.until is None or pause.until > datetime.now(UTC) + LONG_WAIT)
        )
        if isinstance(pause, Finish) or is_long:
            Path(start.result).write_text(type(pause).__name__)
            return
        time.sleep(0.05)


def import_all() -> None:
    """Load what every fork needs and what takes seconds."""
    import openai.resources.batches
    import openai.resources.files  # noqa: F401

    import airflow_provider_batch.operators.batch  # noqa: F401


if __name__ == "__main__":
    serve(BudgetStart, run, import_all)
