"""Offline moderations: only markers flag an input, for the categories that they name."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import ModerationCreateResponse

from airflow_provider_batch.local.answers.moderation import moderate
from tests.local.driving import MODERATIONS, answers, failures, run

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def line(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": MODERATIONS, "body": body}


def flags(verdict: dict[str, Any]) -> set[str]:
    return {name for name, is_flagged in verdict["categories"].items() if is_flagged}


def test_a_text_is_flagged_for_the_categories_in_its_markers(client: OpenAI) -> None:
    answer = client.moderations.create(input="I hate you [[flag:violence]] [[flag:self-harm/intent]]")

    assert answer.model == "offline-responder/omni-moderation-latest"
    (verdict,) = answer.results
    assert verdict.flagged
    assert verdict.categories.violence
    assert verdict.categories.self_harm_intent
    assert not verdict.categories.hate
    assert verdict.category_scores.violence > 0.5 > verdict.category_scores.hate


@pytest.mark.parametrize("text", ["I will kill you", "[[flag:rudeness]]", "[[flag:violence", "flag:violence", ""])
def test_a_text_without_a_valid_marker_is_never_flagged(text: str) -> None:
    assert flags(moderate([text])) == set()
    assert not moderate([text])["flagged"]


def test_each_text_of_a_list_gets_its_own_result_and_objects_share_one(client: OpenAI) -> None:
    texts = client.moderations.create(input=["fine", "[[flag:hate]]", "fine"])
    assert [verdict.flagged for verdict in texts.results] == [False, True, False]

    parts: Any = [{"type": "text", "text": "[[flag:hate]]"}, {"type": "text", "text": "[[flag:sexual]]"}, IMAGE]
    (verdict,) = client.moderations.create(input=parts).results
    assert verdict.categories.hate
    assert verdict.categories.sexual
    assert verdict.category_applied_input_types.sexual == ["text", "image"]
    assert verdict.category_applied_input_types.hate == ["text"]


def test_the_answer_has_every_field_of_the_sdk(client: OpenAI) -> None:
    raw = client.moderations.with_raw_response.create(input="x").http_response.json()

    assert raw["id"].startswith("modr-")
    assert ModerationCreateResponse.model_validate(raw, strict=True).to_dict() == raw


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", 7]}, "input[0]"),
        ({"input": [{"type": "audio"}]}, "input[0].type"),
        ({"input": [{"type": "text"}]}, "input[0].text"),
        ({"input": [IMAGE, {"type": "image_url", "image_url": "x"}]}, "input[1].image_url"),
        ({"input": [IMAGE], "model": "text-moderation-latest"}, "input"),
        ({"stream": True}, "stream"),
    ],
)
def test_an_invalid_body_is_rejected_with_400(client: OpenAI, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.post("/moderations", body={"input": "x", **body}, cast_to=object)

    assert error.value.param == param


def test_a_batch_without_a_model_uses_the_default_model_and_reports_no_tokens(client: OpenAI) -> None:
    batch = run(client, [line("good", input="x"), line("bad", input="[[flag:illicit]]")], MODERATIONS)

    assert batch.status == "completed"
    assert batch.model == "offline-responder/omni-moderation-latest"
    bodies = answers(client, batch)
    assert {name: body["results"][0]["flagged"] for name, body in bodies.items()} == {"good": False, "bad": True}
    assert batch.usage is not None
    assert batch.usage.total_tokens == 0


def test_a_streaming_request_fails_without_failing_its_batch(client: OpenAI) -> None:
    batch = run(client, [line("good", input="x"), line("bad", input="x", stream=True)], MODERATIONS)

    assert batch.status == "completed"
    assert set(answers(client, batch)) == {"good"}
    assert failures(client, batch)["bad"]["response"]["status_code"] == 400
