"""The flex tier of the local server: its answers, its refusals, and its queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.local.in_process import in_process


def chat(model: str = "gpt-5-mini", **body: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **body}


@pytest.mark.parametrize(
    ("tier", "answered"), [("flex", "flex"), ("default", "default"), ("auto", "default"), (None, "default")]
)
def test_an_answer_names_the_tier_that_processed_the_request(tmp_path: Path, tier: str | None, answered: str) -> None:
    with in_process(tmp_path) as server:
        answer = server.call("POST", "/v1/chat/completions", json=chat(service_tier=tier))
        assert (answer.status_code, answer.json()["service_tier"]) == (200, answered)
        body = {"model": "gpt-5-mini", "input": "hello", "service_tier": tier}
        assert server.call("POST", "/v1/responses", json=body).json()["service_tier"] == answered


def test_a_model_without_the_tier_is_refused(tmp_path: Path) -> None:
    with in_process(tmp_path) as server:
        answer = server.call("POST", "/v1/chat/completions", json=chat("gpt-4.1", service_tier="flex"))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "service_tier")
        assert server.call("POST", "/v1/chat/completions", json=chat("gpt-4.1")).status_code == 200


def test_an_unknown_tier_is_refused(tmp_path: Path) -> None:
    with in_process(tmp_path) as server:
        answer = server.call("POST", "/v1/chat/completions", json=chat(service_tier="cheap"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_a_share_of_the_requests_on_flex_is_refused_for_lack_of_resources(tmp_path: Path) -> None:
    with in_process(tmp_path, flex_unavailable=0.5) as server:
        answers = [server.call("POST", "/v1/chat/completions", json=chat(service_tier="flex")) for _ in range(40)]
        codes = [answer.json()["error"]["code"] for answer in answers if answer.status_code == 429]
        assert 8 < len(codes) < 32
        assert set(codes) == {"resource_unavailable"}
        assert server.call("POST", "/v1/chat/completions", json=chat()).status_code == 200


def test_flex_takes_time_of_the_servers_clock(tmp_path: Path) -> None:
    with in_process(tmp_path, flex_latency=600, speed=100_000) as server:
        before = server.server.clock.now()
        assert server.call("POST", "/v1/chat/completions", json=chat(service_tier="flex")).status_code == 200
        assert server.server.clock.now() - before > 60
