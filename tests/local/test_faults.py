"""What a fault hits: the seed decides, regardless of the number and order of the draws."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.local.faults import (
    FIELD_KINDS,
    Call,
    Fault,
    Faults,
    FaultsError,
    Kind,
    Target,
    read_faults,
)

ROWS = [f"row-{number}" for number in range(200)]
seeds = st.integers(0, 2**31)
rates = st.floats(0, 1)
row_kinds = st.sampled_from([Kind.ERROR, Kind.REFUSAL, Kind.MISSING_LINE, Kind.BROKEN_LINE])


def make_faults(seed: int, *plan: Fault, memory: set[bytes] | None = None) -> Faults:
    """Return faults that remember their keys in `memory`."""
    keys: set[bytes] = set() if memory is None else memory

    def first_time(key: bytes) -> bool:
        is_new = key not in keys
        keys.add(key)
        return is_new

    return Faults(seed, first_time, plan)


def hit_rows(injector: Faults, rows: Sequence[str] = ROWS) -> set[str]:
    """Draw once for each row and return the rows that the fault hits."""
    return {row for row in rows if injector.draw_row_fault(injector.plan[0].target, row)}


def hit_calls(injector: Faults, count: int = 200) -> list[int]:
    """Draw for `count` creates and return the numbers of those that the fault hits, from 0."""
    return [number for number in range(count) if injector.draw_call_fault(Call.CREATE)]


@given(seeds, row_kinds)
def test_a_rate_of_0_hits_nothing_and_a_rate_of_1_everything(seed: int, kind: Kind) -> None:
    assert hit_rows(make_faults(seed, Fault(kind=kind, rate=0))) == set()
    assert hit_rows(make_faults(seed, Fault(kind=kind))) == set(ROWS)
    assert hit_calls(make_faults(seed, Fault(kind=Kind.DROP, rate=0))) == []
    assert hit_calls(make_faults(seed, Fault(kind=Kind.DROP))) == list(range(200))


@given(seeds, rates)
def test_the_same_seed_has_the_same_hits(seed: int, rate: float) -> None:
    row, call = Fault(kind=Kind.ERROR, rate=rate), Fault(kind=Kind.DROP, rate=rate)

    assert hit_rows(make_faults(seed, row)) == hit_rows(make_faults(seed, row))
    assert hit_calls(make_faults(seed, call)) == hit_calls(make_faults(seed, call))


def test_different_seeds_have_different_hits() -> None:
    row, call = Fault(kind=Kind.ERROR, rate=0.5), Fault(kind=Kind.DROP, rate=0.5)

    assert len({frozenset(hit_rows(make_faults(seed, row))) for seed in range(20)}) == 20
    assert len({tuple(hit_calls(make_faults(seed, call))) for seed in range(20)}) == 20


def test_two_faults_draw_independently() -> None:
    injector = make_faults(7, Fault(kind=Kind.ERROR, rate=0.5), Fault(kind=Kind.BROKEN_LINE, rate=0.5))

    assert {row for row in ROWS if injector.draw_row_fault(Target.ANSWER, row)} != {
        row for row in ROWS if injector.draw_row_fault(Target.LINE, row)
    }


def test_the_share_of_hits_is_close_to_the_rate() -> None:
    rows = [f"row-{number}" for number in range(20_000)]

    assert len(hit_rows(make_faults(1, Fault(kind=Kind.ERROR, rate=0.1)), rows)) == pytest.approx(2_000, rel=0.1)


@given(seeds, rates, rates)
def test_a_higher_rate_hits_everything_that_a_lower_rate_hits(seed: int, first: float, second: float) -> None:
    low, high = sorted((first, second))

    assert hit_rows(make_faults(seed, Fault(kind=Kind.ERROR, rate=low))) <= hit_rows(
        make_faults(seed, Fault(kind=Kind.ERROR, rate=high))
    )


@given(seeds, rates, st.permutations(ROWS[:30]), st.integers(1, 3))
def test_whether_a_row_is_hit_does_not_depend_on_earlier_rows(
    seed: int, rate: float, shuffled_rows: list[str], times: int
) -> None:
    fault = Fault(kind=Kind.ERROR, rate=rate, times=times)

    assert hit_rows(make_faults(seed, fault), shuffled_rows) == hit_rows(make_faults(seed, fault), ROWS[:30])


@given(seeds, st.integers(1, 5), st.integers(1, 12))
def test_times_limits_the_hits_of_each_row(seed: int, times: int, draws: int) -> None:
    injector = make_faults(seed, Fault(kind=Kind.ERROR, times=times))

    for row in ("a", "b"):
        assert [bool(injector.draw_row_fault(Target.ANSWER, row)) for _ in range(draws)] == [
            number < times for number in range(draws)
        ]
    assert injector.hits == [2 * min(times, draws)]


def test_hits_of_rows_are_remembered_across_a_restart() -> None:
    memory: set[bytes] = set()
    plan = Fault(kind=Kind.ERROR, times=1)

    assert hit_rows(make_faults(1, plan, memory=memory)) == set(ROWS)
    assert hit_rows(make_faults(1, plan, memory=memory)) == set()


@given(seeds, rates, st.integers(0, 30), st.integers(1, 30))
def test_skip_and_times_limit_the_calls_that_are_hit(seed: int, rate: float, skip: int, times: int) -> None:
    all_calls = hit_calls(make_faults(seed, Fault(kind=Kind.DROP, rate=rate)))

    assert (
        hit_calls(make_faults(seed, Fault(kind=Kind.DROP, rate=rate, skip=skip, times=times)))
        == [number for number in all_calls if number >= skip][:times]
    )


def test_a_fault_for_certain_rows_or_calls_hits_no_others() -> None:
    injector = make_faults(
        1,
        Fault(kind=Kind.REFUSAL, custom_ids=frozenset({"a", "b"})),
        Fault(kind=Kind.HTML, calls=frozenset({Call.LIST})),
    )

    assert [row for row in ("a", "b", "c", None) if injector.draw_row_fault(Target.ANSWER, row)] == ["a", "b"]
    assert [call for call in Call if injector.draw_call_fault(call)] == [Call.LIST]
    assert injector.hits == [2, 1]


def test_a_fault_does_not_count_calls_that_it_does_not_apply_to() -> None:
    injector = make_faults(1, Fault(kind=Kind.HTML, calls=frozenset({Call.LIST}), skip=1, times=1))

    drawn_faults = [
        injector.draw_call_fault(call) for call in (Call.CREATE, Call.LIST, Call.CREATE, Call.LIST, Call.LIST)
    ]
    assert [bool(fault) for fault in drawn_faults] == [False, False, False, True, False]


def test_a_fault_hits_only_its_target() -> None:
    injector = make_faults(
        1,
        Fault(kind=Kind.ERROR),
        Fault(kind=Kind.MISSING_LINE),
        Fault(kind=Kind.CRLF),
        Fault(kind=Kind.NO_FINAL_NEWLINE),
        Fault(kind=Kind.STUCK),
        Fault(kind=Kind.DROP),
    )
    drawn_faults = [
        injector.draw_row_fault(Target.ANSWER, "a"),
        injector.draw_row_fault(Target.LINE, "a"),
        injector.draw_batch_fault(),
        injector.draw_call_fault(Call.CREATE),
        *injector.draw_file_faults(),
    ]

    assert [fault.kind for fault in drawn_faults if fault] == [
        Kind.ERROR,
        Kind.MISSING_LINE,
        Kind.STUCK,
        Kind.DROP,
        Kind.CRLF,
        Kind.NO_FINAL_NEWLINE,
    ]
    assert injector.hits == [1] * 6


def test_only_the_first_fault_that_hits_is_drawn() -> None:
    injector = make_faults(1, Fault(kind=Kind.HTML, times=1), Fault(kind=Kind.DROP))

    assert [
        fault.kind for fault in (injector.draw_call_fault(Call.LIST), injector.draw_call_fault(Call.LIST)) if fault
    ] == [
        Kind.HTML,
        Kind.DROP,
    ]


def test_a_new_plan_resets_the_counts_and_draws_the_same() -> None:
    plan = [Fault(kind=Kind.DROP, rate=0.3), Fault(kind=Kind.ERROR, times=1)]
    injector = make_faults(5, *plan)
    previous = hit_calls(injector)
    injector.draw_row_fault(Target.ANSWER, "a")

    injector.replace(plan)
    assert injector.hits == [0, 0]
    assert hit_calls(injector) == previous
    assert injector.draw_row_fault(Target.ANSWER, "a"), "it was hit once, but by the earlier plan"
    injector.replace(())
    assert hit_calls(injector) == []


def test_an_empty_plan_hits_nothing() -> None:
    injector = make_faults(1)

    assert [injector.draw_row_fault(target, "a") for target in Target] == [None] * len(Target)
    assert [injector.draw_call_fault(call) for call in Call] == [None] * len(Call)
    assert injector.draw_batch_fault() is None
    assert injector.draw_file_faults() == []


@given(
    st.lists(
        st.builds(
            Fault,
            kind=st.sampled_from([kind for kind in Kind if kind not in (*FIELD_KINDS, Kind.REDIRECT)]),
            rate=rates,
            times=st.none() | st.integers(1, 9),
        )
        | st.builds(Fault, kind=st.sampled_from(FIELD_KINDS), path=st.text(), json=st.none() | st.text())
        | st.builds(Fault, kind=st.just(Kind.REDIRECT), status=st.integers(300, 399), location=st.text())
    )
)
def test_faults_survive_a_json_round_trip(plan: list[Fault]) -> None:
    assert read_faults(msgspec.json.encode(plan)) == plan


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"{}", None),
        (b"\xff", None),
        (b"[{}]", "[0].kind"),
        (b'[{"kind": "drop"}, {"kind": "explode"}]', "[1].kind"),
        (b'[{"kind": "drop", "rate": 1.5}]', "[0].rate"),
        (b'[{"kind": "drop", "rate": -0.1}]', "[0].rate"),
        (b'[{"kind": "drop", "times": 0}]', "[0].times"),
        (b'[{"kind": "status", "status": 200}]', "[0].status"),
        (b'[{"kind": "status", "calls": ["creat"]}]', "[0].calls[0]"),
        (b'[{"kind": "drop", "probability": 1}]', "[0].probability"),
        (b'[{"kind": "error", "calls": ["create"]}]', "[0].calls"),
        (b'[{"kind": "crlf", "custom_ids": ["a"]}]', "[0].custom_ids"),
        (b'[{"kind": "drop", "custom_ids": ["a"]}]', "[0].custom_ids"),
        (b'[{"kind": "refusal", "skip": 1}]', "[0].skip"),
        (b'[{"kind": "drop", "chunked": true}]', "[0].chunked"),
        (b'[{"kind": "line_field"}]', "[0].path"),
        (b'[{"kind": "status", "status": 307}]', "[0].status"),
        (b'[{"kind": "redirect", "location": "/"}]', "[0].status"),
        (b'[{"kind": "redirect", "status": 307}]', "[0].location"),
        (b'[{"kind": "drop", "location": "/"}]', "[0].location"),
        (b'[{"kind": "hidden", "retrieves": 0}]', "[0].retrieves"),
        (b'[{"kind": "drop", "path": "a"}]', "[0].path"),
        (b'[{"kind": "nested", "depth": 0}]', "[0].depth"),
    ],
)
def test_an_invalid_plan_is_rejected_with_the_name_of_the_field(raw: bytes, param: str | None) -> None:
    with pytest.raises(FaultsError) as error_info:
        read_faults(raw)

    assert error_info.value.param == param
