"""The bodies of answers, in each endpoint's own shape, and the tokens they report."""

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
    """What is answered, before it has an endpoint's shape."""

    model: str
    text: str
    ended: Literal["stop", "length"] = "stop"
    input_tokens: int
    output_tokens: int


def chat_body(draft: Draft, choices: int) -> dict[str, Any]:
    """A `chat.completion` with this many equal choices."""
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
                "finish_reason": draft.ended,
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
    """A `text_completion` with so many equal choices for each prompt; what stands before each text, and its draft."""
    came = sum(draft.input_tokens for _, draft in drafts)
    went = sum(draft.output_tokens for _, draft in drafts) * choices
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": drafts[0][1].model,
        "choices": [
            {
                "text": before + draft.text,
                "index": index * choices + choice,
                "logprobs": None,
                "finish_reason": draft.ended,
            }
            for index, (before, draft) in enumerate(drafts)
            for choice in range(choices)
        ],
        "usage": {"prompt_tokens": came, "completion_tokens": went, "total_tokens": came + went},
        "system_fingerprint": None,
    }


def response_body(draft: Draft, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A `response` with one message; what the request sets is repeated, as OpenAI does."""
    now = int(time.time())
    status = "completed" if draft.ended == "stop" else "incomplete"
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
        "incomplete_details": None if draft.ended == "stop" else {"reason": "max_output_tokens"},
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": draft.model,
        "output": [message],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": asked.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": draft.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": draft.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": draft.input_tokens + draft.output_tokens,
        },
        "user": None,
        "metadata": asked.get("metadata") or {},
    }


def embeddings_body(model: str, vectors: list[array[float]], encoding_format: str, tokens: int) -> dict[str, Any]:
    """A `list` of embeddings, in the order of the inputs."""
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
    """A moderation of one or several inputs, in their order. It reports no tokens."""
    return {"id": f"modr-{secrets.token_hex(12)}", "model": model, "results": verdicts}


def tokens_of(endpoint: str, body: Mapping[str, Any]) -> Tokens:
    """The tokens that an answer reports; zeros where it reports none."""
    usage = body.get("usage") or {}
    if endpoint == EMBEDDINGS:
        return Tokens(input=usage.get("prompt_tokens", 0))
    came, went = ("prompt", "completion") if endpoint in (CHAT, COMPLETIONS) else ("input", "output")
    return Tokens(
        input=usage.get(f"{came}_tokens", 0),
        cached=(usage.get(f"{came}_tokens_details") or {}).get("cached_tokens", 0),
        output=usage.get(f"{went}_tokens", 0),
        reasoning=(usage.get(f"{went}_tokens_details") or {}).get("reasoning_tokens", 0),
    )
