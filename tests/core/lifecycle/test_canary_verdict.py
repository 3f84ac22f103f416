"""The canary: the first requests of each model, sealed separately, and the verdict on their answers."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.fast_lines import line_reader
from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate, Shard
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.lifecycle.budget import ceilings_of
from airflow_provider_batch.core.lifecycle.canary_verdict import CanaryResult, judge_canary
from airflow_provider_batch.core.pricing.estimate import CanaryUsage, RemainingRequests, estimate_after_canary
from airflow_provider_batch.core.pricing.prices import Prices, Usage
from airflow_provider_batch.core.pricing.spread import input_range, output_range
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.sealing.canary_rows import canary_size, lot_of
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader
from airflow_provider_batch.core.sealing.errors import MAX_MODELS
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import CustomIdError, InputError
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import (
    CHAT,
    EMBEDDINGS,
    NOW,
    add_row,
    chat_line,
    manifest_of,
    request,
    row_of,
    settle,
    temporary_folder,
)

MODELS = ["a", "b", "c"]
#: a refused request as a batch would report it: code and message
BAD_PARAMETER = ("unsupported_parameter", "Unsupported parameter: 'temperature'.")
TOO_LONG = ("context_length_exceeded", "This model's maximum context length is 10 tokens.")


@given(
    rows=st.lists(st.tuples(st.sampled_from(MODELS), st.integers(0, 4)), max_size=30),
    canary=st.integers(0, 4),
    deduplicate=st.booleans(),
)
def test_the_canary_of_each_model_is_sealed_separately_and_every_row_once(
    rows: list[tuple[str, int]], canary: int, deduplicate: bool
) -> None:
    with temporary_folder() as folder:
        sealer = Sealer(folder, "g001/b", CHAT, Limits(requests=5), deduplicate=deduplicate, canary=canary)
        lots_by_model: dict[str, list[tuple[int, str]]] = {}
        for number, (model, text) in enumerate(rows, start=1):
            rendered_request = request(f"row-{number}", model=model, text=f"{text}")
            row = row_of(rendered_request, [], number)
            is_new = not sealer.split([row])[1]
            add_row(sealer, rendered_request, [], number, 1)
            if is_new:
                lot = lot_of(row.sha256, rendered_request.custom_id)
                lots_by_model.setdefault(model, []).append((lot, rendered_request.custom_id))
        shards = sealer.finish()
        duplicates = DuplicateReader(folder, sealer.duplicate_files)
        sent_rows = {shard: read_rows(folder, shard) for shard in shards}
        sealed_ids = [row.custom_id for shard_rows in sent_rows.values() for row in shard_rows] + [
            row.custom_id for row in duplicates.all_rows()
        ]
        shard_of_request = {row.sha256: shard.name for shard, shard_rows in sent_rows.items() for row in shard_rows}
        for shard in shards:
            assert {shard_of_request[row.sha256] for row in duplicates.rows_of(shard.name)} <= {shard.name}

    assert Counter(sealed_ids) == Counter(f"row-{number}" for number in range(1, len(rows) + 1))
    canary_ids = {
        shard.model: {row.custom_id for row in shard_rows}
        for shard, shard_rows in sent_rows.items()
        if shard.synchronous
    }
    assert canary_ids == {
        model: {custom_id for _, custom_id in sorted(lots)[: canary_size(canary, len(lots))]}
        for model, lots in lots_by_model.items()
        if canary
    }
    assert sealer.requests == sum(shard.requests for shard in shards)
    assert all(shard.name.startswith("c") == shard.synchronous for shard in shards)
    assert all(shard.requests <= 5 for shard in shards)


def test_a_custom_id_in_the_canary_and_in_another_shard_is_found(tmp_path: Any) -> None:
    sealer = Sealer(LocalFolder(tmp_path), "g001/b", CHAT, Limits(), canary=1)
    for number, text in enumerate(("one", "two", "three"), start=1):
        add_row(sealer, request("the same" if number != 2 else "another", text=text), [], number, 1)

    with pytest.raises(CustomIdError, match=r"'the same' \(rows 1, 3\)"):
        sealer.finish()


def test_a_canary_with_more_models_than_open_files_are_allowed_is_refused(tmp_path: Any) -> None:
    sealer = Sealer(LocalFolder(tmp_path), "g001/b", CHAT, Limits(), canary=1)
    for number in range(1, MAX_MODELS + 1):
        add_row(sealer, request(f"row-{number}", model=f"m{number}"), [], number, 1)

    with pytest.raises(InputError, match=f"more than {MAX_MODELS} models"):
        add_row(sealer, request("one more", model="one more"), [], MAX_MODELS + 1, 1)
    sealer.abandon()


def refused(custom_id: str, code: str, message: str, status: int = 400) -> bytes:
    """A result line of a refused request."""
    error = f'{{"error": {{"message": "{message}", "code": "{code}"}}}}'
    return (
        f'{{"custom_id": "{custom_id}", "response": {{"status_code": {status}, "body": {error}}}, "error": null}}'
    ).encode()


def _input_tokens(line: bytes) -> int:
    answer = line_reader(CHAT, None, bodies=False)(line)
    return 0 if answer is None else answer[1].usage.input_tokens or 0


def answer_line(custom_id: str, *, usage: Any = (10, 64), refusal: Any = None, finish_reason: Any = "stop") -> bytes:
    """A result line with HTTP 200. It has a text unless it is refused or cut off."""
    text = "" if refusal or finish_reason != "stop" else "ok"
    message = {"content": text, "refusal": refusal}
    body = {
        "model": "gpt-5-mini",
        "choices": [{"message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }
    line = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
    return json.dumps(line).encode()


def verdict_on(folder: LocalFolder, answers: list[bytes], *, remaining: int = 8, **manifest: Any) -> CanaryResult:
    """Return the result of a canary with these answers, for `remaining` further requests of 100 input tokens each."""
    shards: list[Shard] = []
    numbers = range(len(answers) + remaining)
    for prefix, part in (("c", numbers[: len(answers)]), ("s", numbers[len(answers) :])):
        sealer = Sealer(folder, f"g001/{prefix}", CHAT, Limits(), name_format=prefix + "{:04d}")
        for number in part:
            add_row(sealer, request(f"row-{number}", text=f"{number}"), [], number + 1, 100)
        shards += sealer.finish()
    shards[0] = msgspec.structs.replace(shards[0], lane=Lane.STANDARD)
    estimate = Estimate(100 * (len(answers) + remaining), 100, 10_000, 1.0, 2.0)
    reported = [tokens for tokens in map(_input_tokens, answers) if tokens]
    settled = settle(folder, shards[0], answers, input_tokens=sum(reported), estimated_input_tokens=100 * len(reported))
    state = fold(manifest_of(shards, **{"estimate": estimate, **manifest}), [settled])
    return judge_canary(state, folder, None, Prices(), NOW, ceilings_of(state.ceiling, None, None))


@pytest.mark.parametrize(
    ("answers", "is_void"),
    [
        ([BAD_PARAMETER, BAD_PARAMETER], True),
        ([BAD_PARAMETER], True),
        ([("model_not_found", "The model does not exist."), ("model_not_found", "The model does not exist.")], True),
        ([BAD_PARAMETER, None], False),
        ([TOO_LONG, TOO_LONG], False),
        ([BAD_PARAMETER, TOO_LONG], True),
        ([("content_policy_violation", "no"), ("content_filter", "no")], False),
        ([("400", "The response was filtered due to Azure's content management policy"), TOO_LONG], False),
        ([None, None], False),
    ],
)
def test_a_generation_is_void_if_no_request_was_answered_and_one_was_refused_for_a_common_reason(
    tmp_path: Any, answers: list[tuple[str, str] | None], is_void: bool
) -> None:
    lines = [
        chat_line(f"row-{n}") if refusal is None else refused(f"row-{n}", *refusal) for n, refusal in enumerate(answers)
    ]

    canary_verdict = verdict_on(LocalFolder(tmp_path), lines).verdict

    assert bool(canary_verdict.void) is is_void
    if is_void:
        assert "canary of gpt-5-mini" in canary_verdict.void
        assert (answers[0] or ("",))[0] in canary_verdict.void
        assert "Nothing was uploaded" in canary_verdict.void
        assert not canary_verdict.over_budget


@pytest.mark.parametrize("status", [408, 409, 429, 503, 529])
def test_a_busy_server_voids_nothing_and_leaves_the_estimate_unchanged(tmp_path: Any, status: int) -> None:
    result = verdict_on(LocalFolder(tmp_path), [refused(f"row-{n}", "busy", "Later.", status) for n in (0, 1)])

    assert result.verdict.void == ""
    assert (result.requests, result.answered, result.mean_output) == (2, 0, {})
    assert (result.verdict.estimate.output_tokens_low, result.verdict.estimate.output_tokens_high) == (
        100,
        10_000,
    )


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_that_fails_on_every_request_voids_the_generation_and_a_retry_may_succeed(
    tmp_path: Any, status: int
) -> None:
    result = verdict_on(LocalFolder(tmp_path), [refused(f"row-{n}", "server_error", "Oops.", status) for n in (0, 1)])

    assert "2 failed (custom_id 'row-0', 'row-1'). server_error: Oops. The answers are kept in" in result.verdict.void
    assert "The canary cost $0.00." in result.verdict.void
    assert "run this task again later" in result.verdict.void
    assert result.verdict.may_pass


CUT_OFF, REFUSAL, FILTERED = {"finish_reason": "length"}, {"refusal": "I cannot."}, {"finish_reason": "content_filter"}
ANSWERED: dict[str, str] = {}


@pytest.mark.parametrize(
    ("answers", "is_void"),
    [
        ([CUT_OFF], True),
        ([CUT_OFF, CUT_OFF], True),
        ([REFUSAL, REFUSAL], True),
        ([FILTERED, FILTERED], True),
        ([CUT_OFF, REFUSAL], True),
        ([CUT_OFF, ANSWERED], False),
        ([ANSWERED, REFUSAL], False),
    ],
)
def test_a_generation_is_void_if_every_answer_was_paid_for_and_none_is_usable(
    tmp_path: Any, answers: list[dict[str, str]], is_void: bool
) -> None:
    lines = [answer_line(f"row-{n}", **answer) for n, answer in enumerate(answers)]

    verdict = verdict_on(LocalFolder(tmp_path), lines).verdict

    assert bool(verdict.void) is is_void
    if is_void:
        assert "The canary cost $0.00" in verdict.void
        assert "ignore_canary=True" in verdict.void
        assert not verdict.may_pass


def test_answers_that_say_nothing_about_other_requests_do_not_decide(tmp_path: Any) -> None:
    busy = refused("row-0", "rate_limit_exceeded", "Later.", 429)
    with_cut_off = [busy, answer_line("row-1", **CUT_OFF)]

    assert verdict_on(LocalFolder(tmp_path / "a"), with_cut_off).verdict.void
    assert not verdict_on(LocalFolder(tmp_path / "b"), [busy, refused("row-1", *TOO_LONG)]).verdict.void


@pytest.mark.parametrize("answer", [CUT_OFF, REFUSAL])
def test_paid_answers_stop_no_job_in_which_nothing_remains_to_be_sent(tmp_path: Any, answer: dict[str, str]) -> None:
    result = verdict_on(LocalFolder(tmp_path), [answer_line("row-0", **answer)], remaining=0)

    assert result.verdict.void == ""
    assert result.messages


def test_an_ignored_canary_stops_nothing_but_the_budget_still_does(tmp_path: Any) -> None:
    lines = [answer_line("row-0", usage=(100, 800_000), **CUT_OFF)]

    ignored = verdict_on(LocalFolder(tmp_path / "a"), lines, ignore_canary=True)
    expensive = verdict_on(LocalFolder(tmp_path / "b"), lines, ignore_canary=True, max_cost_usd=1.0)

    assert (ignored.verdict.void, ignored.verdict.may_pass) == ("", False)
    assert "1 incomplete (custom_id 'row-0')" in ignored.ignored
    assert expensive.verdict.over_budget
    assert "usable" not in expensive.verdict.void


def test_a_job_that_is_too_expensive_and_gets_no_usable_answer_has_both_reasons(tmp_path: Any) -> None:
    lines = [answer_line("row-0", usage=(100, 800_000), **CUT_OFF)]

    verdict = verdict_on(LocalFolder(tmp_path), lines, max_cost_usd=1.0).verdict

    assert verdict.over_budget
    assert "max_cost_usd is $1.00" in verdict.void
    assert "got no usable answer: 1 incomplete" in verdict.void


def test_the_remaining_requests_are_priced_by_the_answers(tmp_path: Any) -> None:
    result = verdict_on(
        LocalFolder(tmp_path), [chat_line("row-0", usage=(110, 300)), chat_line("row-1", usage=(90, 100))]
    )

    assert (result.requests, result.answered, result.mean_output) == (2, 2, {"gpt-5-mini": 200})
    estimate = result.verdict.estimate
    low, high = output_range(OutputSample.of([300, 100]), 8)
    assert (estimate.output_tokens_low, estimate.output_tokens_high) == (400 + round(8 * low), 400 + round(8 * high))
    canary = (200 * 0.25 + 400 * 2) / 1e6
    low_input, high_input = input_range(InputSample(), 8)
    assert estimate.low_usd == pytest.approx(canary + 8 * (100 * low_input * 0.125 + low) / 1e6, rel=1e-3)
    assert estimate.likely_usd == pytest.approx(canary + 8 * (100 * 0.125 + 200) / 1e6)
    assert estimate.high_usd == pytest.approx(canary + 8 * (100 * high_input * 0.125 + high) / 1e6, rel=1e-3)
    assert estimate.input_tokens == 1_000


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 2**70, "completion_tokens": 200}, {"prompt_tokens": 100}])
def test_a_canary_answer_without_a_readable_usage_keeps_its_estimate(tmp_path: Any, usage: Any) -> None:
    measured, unmeasured = chat_line("row-0", usage=(100, 200)), chat_line("row-1", usage=usage)
    estimate = verdict_on(LocalFolder(tmp_path), [measured, unmeasured]).verdict.estimate

    low, high = output_range(OutputSample.of([200]), 9)
    assert (estimate.output_tokens_low, estimate.output_tokens_high) == (200 + round(9 * low), 200 + round(9 * high))
    assert estimate.likely_usd == pytest.approx((100 * 0.25 + 200 * 2 + 9 * (100 * 0.125 + 200)) / 1e6)


def test_similar_answers_of_earlier_jobs_narrow_the_range_and_different_ones_are_ignored(tmp_path: Any) -> None:
    def estimate(name: str, earlier: list[int]) -> Estimate:
        lines = [chat_line("row-0", usage=(100, 190)), chat_line("row-1", usage=(100, 210))]
        outputs = {"gpt-5-mini": OutputSample.of(earlier)} if earlier else {}
        return verdict_on(LocalFolder(tmp_path / name), lines, earlier_outputs=outputs).verdict.estimate

    alone = estimate("alone", [])
    similar = estimate("similar", [180, 220] * 100)

    assert alone.output_tokens_low < similar.output_tokens_low < similar.output_tokens_high < alone.output_tokens_high
    assert estimate("different", [1_800, 2_200] * 100) == alone


def test_the_output_cap_bounds_the_range(tmp_path: Any) -> None:
    lines = [chat_line("row-0", usage=(100, 200)), chat_line("row-1", usage=(100, 200))]

    estimate = verdict_on(LocalFolder(tmp_path), lines, output_caps={"gpt-5-mini": 250.0}).verdict.estimate

    assert estimate.output_tokens_high == 400 + 8 * 250


def test_the_reported_input_corrects_the_estimate_of_the_remaining_requests(tmp_path: Any) -> None:
    lines = [chat_line("row-0", usage=(2_500, 10)), chat_line("row-1", usage=(2_500, 10))]
    result = verdict_on(LocalFolder(tmp_path), lines)

    assert result.input_factors == {"gpt-5-mini": 25.0}
    assert result.verdict.estimate.input_tokens == 2 * 2_500 + 8 * 25 * 100


def test_a_measured_cost_above_the_ceiling_voids_the_generation(tmp_path: Any) -> None:
    lines = [chat_line("row-0", usage=(100, 800_000))]
    affordable = verdict_on(LocalFolder(tmp_path / "a"), lines, max_cost_usd=10_000.0).verdict
    expensive = verdict_on(LocalFolder(tmp_path / "b"), lines, max_cost_usd=1.0).verdict

    assert (affordable.void, affordable.over_budget) == ("", False)
    assert expensive.over_budget
    assert "most likely $8.00), but max_cost_usd is $1.00. Nothing was uploaded" in expensive.void


def test_an_unknown_price_stays_unknown() -> None:
    old_estimate = Estimate(100, 10, 1_000, None, None, unknown_models=["mine"])
    remaining = RemainingRequests(3, 100, OutputSample.of([20, 40]), output_cap=60)

    new_estimate = estimate_after_canary(
        old_estimate, Prices(), {"mine": (CanaryUsage(2, 20, 60, None), remaining)}, CHAT
    )

    assert (new_estimate.low_usd, new_estimate.likely_usd, new_estimate.high_usd) == (None, None, None)
    assert new_estimate.output_tokens_high == 60 + 180


def test_embeddings_have_no_output_to_measure() -> None:
    models = {"text-embedding-3-small": (CanaryUsage(1, 1, 0, Decimal("0.5")), RemainingRequests(3, 1_000_000))}

    new_estimate = estimate_after_canary(Estimate(1_000_001, 0, 0, 1.0, 1.0), Prices(), models, EMBEDDINGS)

    low, high = input_range(InputSample(), 3)
    assert new_estimate.output_tokens_high == 0
    assert new_estimate.low_usd == pytest.approx(0.5 + 0.01 * low)
    assert new_estimate.likely_usd == pytest.approx(0.51)
    assert new_estimate.high_usd == pytest.approx(0.5 + 0.01 * high)


def test_a_model_without_answers_keeps_its_share_of_the_estimate() -> None:
    models = {
        "gpt-5-mini": (
            CanaryUsage(1, 0, 10, Decimal(0)),
            RemainingRequests(4, 0, OutputSample.of([10]), output_cap=20),
        ),
        "gpt-5-nano": (_NO_USAGE, RemainingRequests(5, 0)),
    }

    new_estimate = estimate_after_canary(Estimate(0, 100, 1_000, 0.0, 0.0), Prices(), models, CHAT)

    low, _ = output_range(OutputSample.of([10]), 4)
    assert new_estimate.output_tokens_low == 10 + round(4 * low) + 50
    assert new_estimate.output_tokens_high == 10 + 80 + 500
    assert new_estimate.likely_usd is None


def test_large_prompts_keep_their_higher_price() -> None:
    remaining = RemainingRequests(10, 10 * 300_000, OutputSample.of([100]), output_cap=100)
    models = {"gpt-5.4": (CanaryUsage(1, 0, 100, Decimal(0)), remaining)}

    new_estimate = estimate_after_canary(Estimate(0, 0, 0, 1.0, 1.0), Prices(), models, CHAT)

    cost = Prices().cost("gpt-5.4", Usage(input_tokens=300_000, output_tokens=100))
    assert cost is not None
    assert new_estimate.likely_usd == pytest.approx(float(cost) * 10)


def test_synchronous_requests_cost_the_standard_price_or_the_one_that_the_author_set() -> None:
    usage = Usage(input_tokens=1_000_000)
    assert Prices().cost("gpt-5-mini", usage, lane=Lane.STANDARD) == Prices().standard_cost("gpt-5-mini", usage)
    prices = Prices({"mine": {"input": 3, "output": 4}})
    assert prices.cost("mine", usage, lane=Lane.STANDARD) == 3
    assert Prices().cost("nobody's", usage, lane=Lane.STANDARD) is None


_NO_USAGE = CanaryUsage(0, 0, 0, Decimal(0))
