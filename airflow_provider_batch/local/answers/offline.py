"""Answers requests without a model.

The offline responder is deterministic, and its answers are labelled: their model is `offline-responder/<model>`. For a
request with a JSON schema it makes up an object that fits the schema (`schema_answer`). Without a schema it computes
the answers to some kinds of questions (`skills`), which depend on the model. To all other questions it answers that it
is offline, with a digest of the prompt. Embeddings are hashed words (`embedding`), and moderations flag the categories
that their markers name (`moderation`).

Markers in the user's text reproduce what a real model occasionally does (`corrupt` has the details):

    [[refuse]]           a refusal
    [[filter]]           an answer that the content filter stopped
    [[cutoff]]           an answer that is cut off, as if at the limit on output tokens
    [[empty]]            a response with status 200 but no text
    [[invalid-json]]     a text that does not fit any schema
    [[multi-text]]       responses: a message with half of the text, then one with the full text
    [[separators]]       characters in the text that some programs treat as line ends
    [[fail:429]]         an HTTP error with that status, 400 to 599
    [[request-timeout]]  a timeout before the model answered
    [[status-0]]         the status 0 that real batches have reported (batches only)

A marker with `:once` (`[[fail:500:once]]`) takes effect only the first time that a state directory sees this text with
this custom_id. If a text has several markers, the first one that can still take effect is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.stub import STUB_PREFIX
from airflow_provider_batch.local.answers.body_check import check_body
from airflow_provider_batch.local.answers.classify import rank_by_words
from airflow_provider_batch.local.answers.corrupt import corrupt_reply, replacement_reply
from airflow_provider_batch.local.answers.embedding import dimensions_of, embed
from airflow_provider_batch.local.answers.examples import LabelledExamples
from airflow_provider_batch.local.answers.moderation import moderate
from airflow_provider_batch.local.answers.prompt import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODERATIONS,
    Conversation,
    embedding_inputs,
    estimate,
    input_tokens,
    model_of,
    moderation_inputs,
    output_format,
    prompts,
    read_conversation,
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
from airflow_provider_batch.local.answers.schema_answer import Rank, UnfillableSchemaError, fill
from airflow_provider_batch.local.answers.skills import skills_of, solve
from airflow_provider_batch.local.answers.skills.verdict import judge
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.faults import Fault, Kind

#: default `max_tokens` of a completions request (OpenAI's API description, schema CreateCompletionRequest)
_DEFAULT_COMPLETION_CAP = 16
_MARKERS = {
    "refuse": Kind.REFUSAL,
    "filter": Kind.CONTENT_FILTER,
    "cutoff": Kind.LENGTH,
    "empty": Kind.EMPTY,
    "invalid-json": Kind.INVALID_JSON,
    "multi-text": Kind.MULTI_TEXT,
    "separators": Kind.SEPARATORS,
    "nul": Kind.NUL,
    "nested": Kind.NESTED,
    "request-timeout": Kind.REQUEST_TIMEOUT,
    "status-0": Kind.STATUS_0,
}
_MARKER = re.compile(rf"\[\[({'|'.join(_MARKERS)}|fail:[45]\d\d)(:once)?\]\]")


class OfflineResponder:
    """Answers requests without a model.

    :param first_time: returns True only for the first call with a key, even across restarts.
    :param forgotten: models and skills. Such a model uses the skill only the first time that it gets a question, so
        from the second run of an eval on, it is worse.
    :param examples: choose the values of enums with the same labels. All others are chosen by the words of the text.
    """

    def __init__(
        self,
        first_time: Callable[[bytes], bool],
        forgotten: Collection[tuple[str, str]] = (),
        examples: LabelledExamples | None = None,
    ) -> None:
        self._first_time = first_time
        self._forgotten = forgotten
        self._examples = examples

    def model_name(self, model: str) -> str:
        """Return `offline-responder/<model>`.

        As with OpenAI, this is not the requested name. Unlike OpenAI's, it does not name a dated snapshot.
        """
        return f"{STUB_PREFIX}{model}"

    async def answer(self, request: ModelRequest) -> Reply:
        """Answer one request. See `Responder.answer`."""
        try:
            check_body(request.endpoint, request.body)
            fault = self._marker(request)
            reply = replacement_reply(fault, request) if fault else None
            if reply is None:
                reply = Reply(200, self._body(request))
        except ApiError as error:
            return Reply(error.status, error.body())
        except RecursionError:
            return Reply(400, ApiError(400, "The request is nested too deeply for the offline responder.").body())
        return corrupt_reply(fault, request, reply) if fault else reply

    def _marker(self, request: ModelRequest) -> Fault | None:
        """Return the fault of the first marker that takes effect, or None."""
        text = read_conversation(request.endpoint, request.body).user
        for position, match in enumerate(_MARKER.finditer(text)):
            if match[2]:
                key = msgspec.json.encode([request.endpoint, request.custom_id, text, position])
                if not self._first_time(sha256(key).digest()):
                    continue
            if match[1].startswith("fail:"):
                return Fault(kind=Kind.ERROR, status=int(match[1][-3:]))
            return Fault(kind=_MARKERS[match[1]])
        return None

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        if request.endpoint == EMBEDDINGS:
            return self._embeddings(request)
        if request.endpoint == MODERATIONS:
            model = self.model_name(model_of(request.endpoint, request.body))
            return moderation_body(model, [moderate(parts) for parts in moderation_inputs(request.body)])
        if request.endpoint == COMPLETIONS:
            return self._completions(request)
        draft = self._draft(request)
        if request.endpoint == CHAT:
            return chat_body(draft, request.body.get("n") or 1)
        return response_body(draft, request.body)

    def _completions(self, request: ModelRequest) -> dict[str, Any]:
        single_requests = [
            replace(request, body={**request.body, "prompt": prompt}) for prompt in prompts(request.body)
        ]
        echoes = [
            read_conversation(single.endpoint, single.body).user if request.body.get("echo") else ""
            for single in single_requests
        ]
        drafts = [self._draft(single) for single in single_requests]
        return completion_body(list(zip(echoes, drafts, strict=True)), request.body.get("n") or 1)

    def _embeddings(self, request: ModelRequest) -> dict[str, Any]:
        model = request.body["model"]
        dimensions = request.body.get("dimensions") or dimensions_of(model)
        return embeddings_body(
            self.model_name(model),
            [embed(item, dimensions) for item in embedding_inputs(request.body)],
            request.body.get("encoding_format") or "float",
            input_tokens(request.endpoint, request.body),
        )

    def _draft(self, request: ModelRequest) -> Draft:
        conversation = read_conversation(request.endpoint, request.body)
        text = self._text(request, conversation._replace(user=_MARKER.sub("", conversation.user).strip()))
        draft = Draft(
            model=self.model_name(request.body["model"]),
            text=text,
            input_tokens=input_tokens(request.endpoint, request.body),
            output_tokens=estimate(text),
        )
        return _truncate(draft, _output_cap(request))

    def _text(self, request: ModelRequest, conversation: Conversation) -> str:
        requested_format = output_format(request.endpoint, request.body)
        if requested_format is not None:
            return _fill(requested_format, conversation, partial(self._rank, request.body["model"]))
        digest = sha256(f"{conversation.system}\0{conversation.user}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if request.endpoint == CHAT and (request.body.get("response_format") or {}).get("type") == "json_object":
            return msgspec.json.encode({"offline": True, "prompt_sha256": digest}).decode()
        answer = self._solve(request.body["model"], f"{conversation.system}\n\n{conversation.user}".strip())
        return answer or f"Offline responder: no model was called. The digest of the prompt is sha256:{digest}."

    def _rank(self, model: str, values: Sequence[str], text: str, instructions: str) -> list[str]:
        best = judge(text) if {"correct", "incorrect"}.issubset(values) else None
        if best is None and self._examples is not None:
            best = self._examples.choose(values, text, model)
        if best is None:
            return rank_by_words(values, text, instructions)
        return [best, *(value for value in values if value != best)]

    def _solve(self, model: str, question: str) -> str | None:
        """Return the answer of the first skill of the model that understands the question, or None."""
        solution = solve(question, skills_of(model))
        if solution is None:
            return None
        answer, skill = solution
        if (model, skill) in self._forgotten:
            key = sha256(msgspec.json.encode(["forgotten", model, question])).digest()
            return answer if self._first_time(key) else None
        return answer


def _fill(requested_format: Mapping[str, Any], conversation: Conversation, rank: Rank) -> str:
    try:
        value = fill(requested_format["schema"], text=conversation.user, instructions=conversation.system, rank=rank)
    except UnfillableSchemaError as error:
        raise ApiError(
            400,
            f"Invalid schema for response_format '{requested_format['name']}': the offline responder cannot answer"
            f" it: {error}",
            param="response_format",
        ) from error
    return msgspec.json.encode(value).decode()


def _output_cap(request: ModelRequest) -> int | None:
    caps = (request.body.get(name) for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"))
    return next(
        (cap for cap in caps if cap is not None), _DEFAULT_COMPLETION_CAP if request.endpoint == COMPLETIONS else None
    )


def _truncate(draft: Draft, cap: int | None) -> Draft:
    if cap is None or draft.output_tokens <= cap:
        return draft
    text = draft.text.encode()[: cap * 4].decode(errors="ignore")
    return replace(draft, text=text, finish_reason="length", output_tokens=cap)
