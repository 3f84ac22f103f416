"""The bodies of answers in the format of each endpoint, and the tokens that they report."""

from __future__ import annotations

import secrets
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_batch.local.answers.embedding import encode
from airflow_provider_batch.local.answers.prompt import CHAT, COMPLETIONS, EMBEDDINGS
from airflow_provider_batch.local.api.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An answer before it takes the format of an endpoint."""

    model: str
    text: str
    finish_reason: Literal["stop", "length"] = "stop"
    input_tokens: int
    output_tokens: int


def chat_body(draft: Draft, choices: int) -> dict[str, Any]:
    """Return a `chat.completion` with `choices` identical choices."""
    output = draft.output_tokens * choices
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": draft.model,
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": draft.text,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": draft.finish_reason,
            }
            for index in range(choices)
        ],
        "usage": {
            "prompt_tokens": draft.input_tokens,
            "completion_tokens": output,
            "total_tokens": draft.input_tokens + output,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def completion_body(drafts: Sequence[tuple[str, Draft]], choices: int) -> dict[str, Any]:
    """Return a `text_completion` with `choices` identical choices for each prompt.

    :param drafts: for each prompt the echo that goes before its text (or ""), and its draft.
    """
    input_tokens = sum(draft.input_tokens for _, draft in drafts)
    output_tokens = sum(draft.output_tokens for _, draft in drafts) * choices
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": drafts[0][1].model,
        "choices": [
            {
                "text": echo + draft.text,
                "index": index * choices + choice,
                "logprobs": None,
                "finish_reason": draft.finish_reason,
            }
            for index, (echo, draft) in enumerate(drafts)
            for choice in range(choices)
        ],
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
        "system_fingerprint": None,
    }


def response_body(draft: Draft, request_body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `response` with one message. It repeats the settings of the request, as OpenAI does."""
    now = int(time.time())
    status = "completed" if draft.finish_reason == "stop" else "incomplete"
    message = {
        "id": f"msg_{secrets.token_hex(24)}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [{"type": "output_text", "text": draft.text, "annotations": [], "logprobs": []}],
    }
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": now,
        "status": status,
        "background": False,
        "completed_at": now if status == "completed" else None,
        "error": None,
        "incomplete_details": None if draft.finish_reason == "stop" else {"reason": "max_output_tokens"},
        "instructions": request_body.get("instructions"),
        "max_output_tokens": request_body.get("max_output_tokens"),
        "model": draft.model,
        "output": [message],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": request_body.get("store", True),
        "temperature": request_body.get("temperature", 1.0),
        "text": request_body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": request_body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": draft.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": draft.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": draft.input_tokens + draft.output_tokens,
        },
        "user": None,
        "metadata": request_body.get("metadata") or {},
    }


def embeddings_body(model: str, vectors: list[array[float]], encoding_format: str, tokens: int) -> dict[str, Any]:
    """Return a `list` of embeddings, in the order of the inputs."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector, encoding_format)}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def moderation_body(model: str, verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the moderation of all inputs, in their order. It reports no tokens."""
    return {"id": f"modr-{secrets.token_hex(12)}", "model": model, "results": verdicts}


def tokens_of(endpoint: str, body: Mapping[str, Any]) -> Tokens:
    """Return the tokens that an answer reports, or zeros if it reports none."""
    usage = body.get("usage") or {}
    if endpoint == EMBEDDINGS:
        return Tokens(input=usage.get("prompt_tokens", 0))
    input_name, output_name = ("prompt", "completion") if endpoint in (CHAT, COMPLETIONS) else ("input", "output")
    return Tokens(
        input=usage.get(f"{input_name}_tokens", 0),
        cached=(usage.get(f"{input_name}_tokens_details") or {}).get("cached_tokens", 0),
        output=usage.get(f"{output_name}_tokens", 0),
        reasoning=(usage.get(f"{output_name}_tokens_details") or {}).get("reasoning_tokens", 0),
    )
