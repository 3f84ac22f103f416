"""Real operators in real Airflow tasks are killed or stopped at every step, while the server injects faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from airflow_provider_batch.local.faults import Kind
from tests.chaos.faults import LASTING_FAULTS
from tests.chaos.rounds import STEPS, Chaos, Count, Round

ROUNDS = [Round.draw(number) for number in range(len(STEPS))]


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    with Chaos(tmp_path_factory.mktemp("chaos")) as chaos:
        yield chaos


@pytest.fixture(scope="module")
def total() -> Count:
    return Count()


@pytest.mark.parametrize("round_", ROUNDS, ids=[f"{round_.number}: {round_.strikes[0][0]}" for round_ in ROUNDS])
def test_no_row_is_lost_duplicated_or_paid_twice_if_a_worker_dies_at_any_step(
    chaos: Chaos, total: Count, round_: Round
) -> None:
    count = chaos.play(round_)
    total.add(count)

    assert not count.violations, str(round_)


def test_a_job_whose_files_never_agree_is_held_and_lands_once_a_person_clears_it(chaos: Chaos) -> None:
    error_page = next(fault for fault in LASTING_FAULTS if fault.kind is Kind.ERROR_BODY)
    count = chaos.play(Round(number=len(ROUNDS), strikes=[], faults=[], lasting_faults=[error_page]))

    assert not count.violations
    assert (count.interventions, count.executions) == (1, count.rows)


def test_a_worker_was_hit_at_every_step(total: Count, record_property: Callable[[str, object], None]) -> None:
    record_property("measurements", f"chaos: {total.summary()}")

    assert total.rounds == len(ROUNDS)
    assert set(STEPS) <= set(total.steps)
