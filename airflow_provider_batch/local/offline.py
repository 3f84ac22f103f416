"""Answers without any model.

The offline responder is deterministic and says what it is: its answers carry `offline-responder/<model>` as
their model. With a JSON schema it makes up an object that fits (`schema_answer`), without one it says that it
is offline and names a digest of the prompt; embeddings are hashed words (`embedding`).

Markers in the user's text, its own, bring about what a real model does now and then:

    [[refuse]]          a refusal
    [[filter]]          stopped by the content filter
    [[cutoff]]          cut off, as if the cap on output tokens were reached
    [[invalid-json]]    a text that fits no schema
    [[fail:429]]        an HTTP error of that status, 400 to 599

With `:once` (`[[fail:500:once]]`) a marker works the first time this text is asked under this custom_id and
never again in the life of the state directory. Of several markers the first that still works counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec

from airflow_provider_batch.local.body_check import check_body
from airflow_provider_batch.local.embedding import dimensions_of, embed
from airflow_provider_batch.local.errors import ApiError
from airflow_provider_batch.local.prompt import (
    CHAT,
    EMBEDDINGS,
    Conversation,
    conversation,
    embedding_inputs,
    estimate,
    input_tokens,
    output_schema,
)
from airflow_provider_batch.local.replies import Draft, chat_body, embeddings_body, response_body
from airflow_provider_batch.local.responder import Ask, Reply
from airflow_provider_batch.local.schema_answer import UnfillableSchemaError, fill

_MARKER = re.compile(r"\[\[(refuse|filter|cutoff|invalid-json|fail:[45]\d\d)(:once)?\]\]")


class OfflineResponder:
    """Answers without a model.

    :param first_time: remembers keys beyond the life of the process; True for a key's first call only.
    """

    def __init__(self, first_time: Callable[[bytes], bool]) -> None:
        self._first_time = first_time

    def model_name(self, asked: str) -> str:
        """`offline-responder/<asked>`."""
        return f"offline-responder/{asked}"

    async def answer(self, ask: Ask) -> Reply:
        """See `Responder.answer`."""
        try:
            check_body(ask.endpoint, ask.body)
            if ask.endpoint == EMBEDDINGS:
                return Reply(200, self._embeddings(ask))
            draft = self._draft(ask)
        except ApiError as refused:
            return Reply(refused.status, refused.body())
        if ask.endpoint == CHAT:
            return Reply(200, chat_body(draft, ask.body.get("n") or 1))
        return Reply(200, response_body(draft, ask.body))

    def _marker(self, ask: Ask, text: str) -> str | None:
        """The marker that counts; a failure is raised."""
        for position, found in enumerate(_MARKER.finditer(text)):
            if found[2]:
                key = msgspec.json.encode([ask.endpoint, ask.custom_id, text, position])
                if not self._first_time(sha256(key).digest()):
                    continue
            if found[1].startswith("fail:"):
                raise _failure(int(found[1][-3:]))
            return found[1]
        return None

    def _embeddings(self, ask: Ask) -> dict[str, Any]:
        inputs = embedding_inputs(ask.body)
        self._marker(ask, "\n".join(item for item in inputs if isinstance(item, str)))
        model = ask.body["model"]
        dimensions = ask.body.get("dimensions") or dimensions_of(model)
        return embeddings_body(
            self.model_name(model),
            [embed(item, dimensions) for item in inputs],
            ask.body.get("encoding_format") or "float",
            input_tokens(ask.endpoint, ask.body),
        )

    def _draft(self, ask: Ask) -> Draft:
        talk = conversation(ask.endpoint, ask.body)
        marker = self._marker(ask, talk.user)
        talk = talk._replace(user=_MARKER.sub("", talk.user).strip())
        draft = Draft(
            model=self.model_name(ask.body["model"]),
            text="",
            input_tokens=input_tokens(ask.endpoint, ask.body),
            output_tokens=0,
        )
        if marker == "filter":
            return replace(draft, ended="content_filter")
        if marker == "refuse":
            refusal = "I'm sorry, but I can't help with that. (offline responder, asked to refuse)"
            return replace(draft, refusal=refusal, output_tokens=estimate(refusal))
        if marker == "invalid-json":
            text = "This is no JSON: the offline responder was asked for an answer that fits no schema."
        else:
            text = _text(ask, talk)
        if marker == "cutoff":
            return replace(draft, text=text[: len(text) // 2], ended="length", output_tokens=estimate(text) // 2)
        return _capped(replace(draft, text=text, output_tokens=estimate(text)), _cap(ask.body))


def _failure(status: int) -> ApiError:
    if status == 429:
        return ApiError(429, "Rate limit reached for requests (marker).", type="requests", code="rate_limit_exceeded")
    if status >= 500:
        return ApiError(
            status,
            "The server had an error processing your request (marker). You can retry your request.",
            type="server_error",
        )
    return ApiError(status, f"The request asks to fail with {status} (marker).", code="invalid_value")


def _text(ask: Ask, talk: Conversation) -> str:
    form = output_schema(ask.endpoint, ask.body)
    if form is not None:
        try:
            value = fill(form["schema"], text=talk.user, instructions=talk.system)
        except UnfillableSchemaError as error:
            raise ApiError(
                400,
                f"Invalid schema for response_format '{form['name']}': the offline responder cannot answer it: {error}",
                param="response_format",
            ) from error
        return msgspec.json.encode(value).decode()
    digest = sha256(f"{talk.system}\0{talk.user}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    if ask.endpoint == CHAT and (ask.body.get("response_format") or {}).get("type") == "json_object":
        return msgspec.json.encode({"offline": True, "prompt_sha256": digest}).decode()
    return f"Offline responder: no model was asked. The prompt has the digest sha256:{digest}."


def _cap(body: Mapping[str, Any]) -> int | None:
    caps = (body.get(name) for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"))
    return next((cap for cap in caps if cap is not None), None)


def _capped(draft: Draft, cap: int | None) -> Draft:
    if cap is None or draft.output_tokens <= cap:
        return draft
    kept = draft.text.encode()[: cap * 4].decode(errors="ignore")
    return replace(draft, text=kept, ended="length", output_tokens=cap)
