"""Who is hit by a fault: decided by the seed, however often it is asked and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.local.faults import Call, Fault, Faults, FaultsError, Kind, Target, read_faults

ROWS = [f"row-{number}" for number in range(200)]
seeds = st.integers(0, 2**31)
rates = st.floats(0, 1)
row_kinds = st.sampled_from([Kind.ERROR, Kind.REFUSAL, Kind.MISSING_LINE, Kind.BROKEN_LINE])


def faults(seed: int, *plan: Fault, memory: set[bytes] | None = None) -> Faults:
    """Faults whose memory lasts as long as the set."""
    known: set[bytes] = set() if memory is None else memory

    def first_time(key: bytes) -> bool:
        new = key not in known
        known.add(key)
        return new

    return Faults(seed, first_time, plan)


def rows_hit(asked: Faults, rows: Sequence[str] = ROWS) -> set[str]:
    """The rows of these that a fault hits, asked once each."""
    return {row for row in rows if asked.draw_row_fault(asked.plan[0].target, row)}


def calls_hit(asked: Faults, count: int = 200) -> list[int]:
    """Which of so many creates are hit, from 0."""
    return [number for number in range(count) if asked.draw_call_fault(Call.CREATE)]


@given(seeds, row_kinds)
def test_a_rate_of_0_hits_nobody_and_one_of_1_everybody(seed: int, kind: Kind) -> None:
    assert rows_hit(faults(seed, Fault(kind=kind, rate=0))) == set()
    assert rows_hit(faults(seed, Fault(kind=kind))) == set(ROWS)
    assert calls_hit(faults(seed, Fault(kind=Kind.DROP, rate=0))) == []
    assert calls_hit(faults(seed, Fault(kind=Kind.DROP))) == list(range(200))


@given(seeds, rates)
def test_the_same_seed_hits_the_same(seed: int, rate: float) -> None:
    row, call = Fault(kind=Kind.ERROR, rate=rate), Fault(kind=Kind.DROP, rate=rate)

    assert rows_hit(faults(seed, row)) == rows_hit(faults(seed, row))
    assert calls_hit(faults(seed, call)) == calls_hit(faults(seed, call))


def test_another_seed_hits_others() -> None:
    row, call = Fault(kind=Kind.ERROR, rate=0.5), Fault(kind=Kind.DROP, rate=0.5)

    assert len({frozenset(rows_hit(faults(seed, row))) for seed in range(20)}) == 20
    assert len({tuple(calls_hit(faults(seed, call))) for seed in range(20)}) == 20


def test_two_faults_draw_independently() -> None:
    both = faults(7, Fault(kind=Kind.ERROR, rate=0.5), Fault(kind=Kind.BROKEN_LINE, rate=0.5))

    assert {row for row in ROWS if both.draw_row_fault(Target.ANSWER, row)} != {
        row for row in ROWS if both.draw_row_fault(Target.LINE, row)
    }


def test_a_rate_is_about_the_share_that_is_hit() -> None:
    rows = [f"row-{number}" for number in range(20_000)]

    assert len(rows_hit(faults(1, Fault(kind=Kind.ERROR, rate=0.1)), rows)) == pytest.approx(2_000, rel=0.1)


@given(seeds, rates, rates)
def test_a_higher_rate_hits_all_that_a_lower_one_does(seed: int, one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert rows_hit(faults(seed, Fault(kind=Kind.ERROR, rate=low))) <= rows_hit(
        faults(seed, Fault(kind=Kind.ERROR, rate=high))
    )


@given(seeds, rates, st.permutations(ROWS[:30]), st.integers(1, 3))
def test_whether_a_row_is_hit_does_not_depend_on_the_rows_before_it(
    seed: int, rate: float, shuffled: list[str], times: int
) -> None:
    fault = Fault(kind=Kind.ERROR, rate=rate, times=times)

    assert rows_hit(faults(seed, fault), shuffled) == rows_hit(faults(seed, fault), ROWS[:30])


@given(seeds, st.integers(1, 5), st.integers(1, 12))
def test_one_row_is_hit_at_most_so_often(seed: int, times: int, asked: int) -> None:
    limited = faults(seed, Fault(kind=Kind.ERROR, times=times))

    for row in ("a", "b"):
        assert [bool(limited.draw_row_fault(Target.ANSWER, row)) for _ in range(asked)] == [
            n < times for n in range(asked)
        ]
    assert limited.hits == [2 * min(times, asked)]


def test_a_row_is_not_hit_anew_because_the_server_was_started_again() -> None:
    memory: set[bytes] = set()
    plan = Fault(kind=Kind.ERROR, times=1)

    assert rows_hit(faults(1, plan, memory=memory)) == set(ROWS)
    assert rows_hit(faults(1, plan, memory=memory)) == set()


@given(seeds, rates, st.integers(0, 30), st.integers(1, 30))
def test_so_many_calls_pass_first_and_at_most_so_many_are_hit(seed: int, rate: float, skip: int, times: int) -> None:
    every = calls_hit(faults(seed, Fault(kind=Kind.DROP, rate=rate)))

    assert (
        calls_hit(faults(seed, Fault(kind=Kind.DROP, rate=rate, skip=skip, times=times)))
        == [number for number in every if number >= skip][:times]
    )


def test_a_fault_of_named_rows_or_calls_hits_no_others() -> None:
    asked = faults(
        1,
        Fault(kind=Kind.REFUSAL, custom_ids=frozenset({"a", "b"})),
        Fault(kind=Kind.HTML, calls=frozenset({Call.LIST})),
    )

    assert [row for row in ("a", "b", "c", None) if asked.draw_row_fault(Target.ANSWER, row)] == ["a", "b"]
    assert [call for call in Call if asked.draw_call_fault(call)] == [Call.LIST]
    assert asked.hits == [2, 1]


def test_calls_that_a_fault_is_not_about_do_not_count_for_it() -> None:
    asked = faults(1, Fault(kind=Kind.HTML, calls=frozenset({Call.LIST}), skip=1, times=1))

    seen = [asked.draw_call_fault(call) for call in (Call.CREATE, Call.LIST, Call.CREATE, Call.LIST, Call.LIST)]
    assert [bool(fault) for fault in seen] == [False, False, False, True, False]


def test_a_fault_strikes_in_its_place_only() -> None:
    asked = faults(
        1,
        Fault(kind=Kind.ERROR),
        Fault(kind=Kind.MISSING_LINE),
        Fault(kind=Kind.CRLF),
        Fault(kind=Kind.NO_FINAL_NEWLINE),
        Fault(kind=Kind.STUCK),
        Fault(kind=Kind.DROP),
    )
    hit = [
        asked.draw_row_fault(Target.ANSWER, "a"),
        asked.draw_row_fault(Target.LINE, "a"),
        asked.draw_batch_fault(),
        asked.draw_call_fault(Call.CREATE),
        *asked.draw_file_faults(),
    ]

    assert [fault.kind for fault in hit if fault] == [
        Kind.ERROR,
        Kind.MISSING_LINE,
        Kind.STUCK,
        Kind.DROP,
        Kind.CRLF,
        Kind.NO_FINAL_NEWLINE,
    ]
    assert asked.hits == [1] * 6


def test_the_first_fault_that_hits_counts() -> None:
    asked = faults(1, Fault(kind=Kind.HTML, times=1), Fault(kind=Kind.DROP))

    assert [fault.kind for fault in (asked.draw_call_fault(Call.LIST), asked.draw_call_fault(Call.LIST)) if fault] == [
        Kind.HTML,
        Kind.DROP,
    ]


def test_a_new_plan_counts_from_0_and_draws_as_before() -> None:
    plan = [Fault(kind=Kind.DROP, rate=0.3), Fault(kind=Kind.ERROR, times=1)]
    asked = faults(5, *plan)
    before = calls_hit(asked)
    asked.draw_row_fault(Target.ANSWER, "a")

    asked.replace(plan)
    assert asked.hits == [0, 0]
    assert calls_hit(asked) == before
    assert asked.draw_row_fault(Target.ANSWER, "a"), "hit once in the earlier plan, which is over"
    asked.replace(())
    assert calls_hit(asked) == []


def test_without_a_plan_nothing_happens() -> None:
    none = faults(1)

    assert [none.draw_row_fault(target, "a") for target in Target] == [None] * len(Target)
    assert [none.draw_call_fault(call) for call in Call] == [None] * len(Call)
    assert none.draw_batch_fault() is None
    assert none.draw_file_faults() == []


@given(st.lists(st.builds(Fault, kind=st.sampled_from(Kind), rate=rates, times=st.none() | st.integers(1, 9))))
def test_faults_are_read_as_they_were_written(plan: list[Fault]) -> None:
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
    ],
)
def test_what_is_no_list_of_faults_is_refused_with_the_name_of_the_field(raw: bytes, param: str | None) -> None:
    with pytest.raises(FaultsError) as caught:
        read_faults(raw)

    assert caught.value.param == param
