"""Answers without any model.

The offline responder is deterministic and says what it is: its answers carry `offline-responder/<model>` as
their model. With a JSON schema it makes up an object that fits (`schema_answer`), without one it says that it
is offline and names a digest of the prompt; embeddings are hashed words (`embedding`), moderations flag what a marker
of their own asks for (`moderation`).

Markers in the user's text, its own, bring about what a real model does now and then (`spoil` has the details):

    [[refuse]]           a refusal
    [[filter]]           stopped by the content filter
    [[cutoff]]           cut off, as if the cap on output tokens were reached
    [[empty]]            200 without any text
    [[invalid-json]]     a text that fits no schema
    [[multi-text]]       responses: a text that is cut off, then the whole one
    [[separators]]       characters in the text that some take for line ends
    [[fail:429]]         an HTTP error of that status, 400 to 599
    [[request-timeout]]  given up before the model answered
    [[status-0]]         the status 0 that batches were seen to report; only in a batch

With `:once` (`[[fail:500:once]]`) a marker works the first time this text is asked under this custom_id and
never again in the life of the state directory. Of several markers the first that still works counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec

from airflow_provider_batch.local.answers.body_check import check_body
from airflow_provider_batch.local.answers.corrupt import instead, spoilt
from airflow_provider_batch.local.answers.embedding import dimensions_of, embed
from airflow_provider_batch.local.answers.moderation import moderate
from airflow_provider_batch.local.answers.prompt import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODERATIONS,
    Conversation,
    conversation,
    embedding_inputs,
    estimate,
    input_tokens,
    model_of,
    moderation_inputs,
    output_schema,
    prompts,
)
from airflow_provider_batch.local.answers.replies import (
    Draft,
    chat_body,
    completion_body,
    embeddings_body,
    moderation_body,
    response_body,
)
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply
from airflow_provider_batch.local.answers.schema_answer import UnfillableSchemaError, fill
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.faults import Fault, Kind

#: `max_tokens` of a completions request that sets none (OpenAI's API description, schema CreateCompletionRequest)
_COMPLETION_CAP = 16
_MARKERS = {
    "refuse": Kind.REFUSAL,
    "filter": Kind.CONTENT_FILTER,
    "cutoff": Kind.LENGTH,
    "empty": Kind.EMPTY,
    "invalid-json": Kind.INVALID_JSON,
    "multi-text": Kind.MULTI_TEXT,
    "separators": Kind.SEPARATORS,
    "request-timeout": Kind.REQUEST_TIMEOUT,
    "status-0": Kind.STATUS_0,
}
_MARKER = re.compile(rf"\[\[({'|'.join(_MARKERS)}|fail:[45]\d\d)(:once)?\]\]")


class OfflineResponder:
    """Answers without a model.

    :param first_time: remembers keys beyond the life of the process; True for a key's first call only.
    """

    def __init__(self, first_time: Callable[[bytes], bool]) -> None:
        self._first_time = first_time

    def model_name(self, asked: str) -> str:
        """`offline-responder/<asked>`: as at OpenAI not the name that was asked for, and no snapshot is made up."""
        return f"offline-responder/{asked}"

    async def answer(self, ask: ModelRequest) -> Reply:
        """See `Responder.answer`."""
        try:
            check_body(ask.endpoint, ask.body)
            fault = self._marker(ask)
            reply = instead(fault, ask) if fault else None
            if reply is None:
                reply = Reply(200, self._body(ask))
        except ApiError as refused:
            return Reply(refused.status, refused.body())
        except RecursionError:
            return Reply(400, ApiError(400, "The request is nested too deeply for the offline responder.").body())
        return spoilt(fault.kind, ask, reply) if fault else reply

    def _marker(self, ask: ModelRequest) -> Fault | None:
        """The marker that counts, as the fault it asks for."""
        text = _said(ask)
        for position, found in enumerate(_MARKER.finditer(text)):
            if found[2]:
                key = msgspec.json.encode([ask.endpoint, ask.custom_id, text, position])
                if not self._first_time(sha256(key).digest()):
                    continue
            if found[1].startswith("fail:"):
                return Fault(kind=Kind.ERROR, status=int(found[1][-3:]))
            return Fault(kind=_MARKERS[found[1]])
        return None

    def _body(self, ask: ModelRequest) -> dict[str, Any]:
        if ask.endpoint == EMBEDDINGS:
            return self._embeddings(ask)
        if ask.endpoint == MODERATIONS:
            model = self.model_name(model_of(ask.endpoint, ask.body))
            return moderation_body(model, [moderate(parts) for parts in moderation_inputs(ask.body)])
        if ask.endpoint == COMPLETIONS:
            return self._completions(ask)
        draft = self._draft(ask)
        if ask.endpoint == CHAT:
            return chat_body(draft, ask.body.get("n") or 1)
        return response_body(draft, ask.body)

    def _completions(self, ask: ModelRequest) -> dict[str, Any]:
        asked = [replace(ask, body={**ask.body, "prompt": prompt}) for prompt in prompts(ask.body)]
        echoed = [conversation(one.endpoint, one.body).user if ask.body.get("echo") else "" for one in asked]
        drafts = [self._draft(one) for one in asked]
        return completion_body(list(zip(echoed, drafts, strict=True)), ask.body.get("n") or 1)

    def _embeddings(self, ask: ModelRequest) -> dict[str, Any]:
        model = ask.body["model"]
        dimensions = ask.body.get("dimensions") or dimensions_of(model)
        return embeddings_body(
            self.model_name(model),
            [embed(item, dimensions) for item in embedding_inputs(ask.body)],
            ask.body.get("encoding_format") or "float",
            input_tokens(ask.endpoint, ask.body),
        )

    def _draft(self, ask: ModelRequest) -> Draft:
        talk = conversation(ask.endpoint, ask.body)
        text = _text(ask, talk._replace(user=_MARKER.sub("", talk.user).strip()))
        draft = Draft(
            model=self.model_name(ask.body["model"]),
            text=text,
            input_tokens=input_tokens(ask.endpoint, ask.body),
            output_tokens=estimate(text),
        )
        return _capped(draft, _cap(ask))


def _said(ask: ModelRequest) -> str:
    """What the user says, where the markers are."""
    return conversation(ask.endpoint, ask.body).user


def _text(ask: ModelRequest, talk: Conversation) -> str:
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


def _cap(ask: ModelRequest) -> int | None:
    caps = (ask.body.get(name) for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"))
    return next((cap for cap in caps if cap is not None), _COMPLETION_CAP if ask.endpoint == COMPLETIONS else None)


def _capped(draft: Draft, cap: int | None) -> Draft:
    if cap is None or draft.output_tokens <= cap:
        return draft
    kept = draft.text.encode()[: cap * 4].decode(errors="ignore")
    return replace(draft, text=kept, ended="length", output_tokens=cap)
