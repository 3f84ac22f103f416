"""A batch's input file, checked as a whole before anything runs.

Every line is looked at and every problem is one error with its line, counted from 1; one bad line fails the
batch. Codes and messages are OpenAI's where they are on record. Not on record, and therefore this server's
own choice: the codes for too many requests, too many embedding inputs and a second model, the text for a
duplicate custom_id, and what is said of endpoints other than chat. Blank lines are skipped.

A moderations request that asks to stream fails alone, when it is answered (OpenAI, Batch guide), and so does one
for embeddings, which do not stream at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_batch.local.answers.prompt import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    embedding_inputs,
    input_tokens,
    model_of,
)
from airflow_provider_batch.local.api.objects import BatchError
from airflow_provider_batch.local.settings import MAX_EMBEDDING_INPUTS, MAX_REQUESTS

#: bytes of whole lines that are read from an input file at once, about
_BLOCK = 32_768
_REQUIRED = ("custom_id", "method", "url", "body")
#: the endpoints that can stream outside a batch, by the names they have in messages
_STREAMING = {CHAT: "Chat Completions", RESPONSES: "Responses", COMPLETIONS: "Completions"}
#: what a request asks, of which something has to be there; the first is named in messages
_ASKED = {
    CHAT: ("messages",),
    COMPLETIONS: ("prompt",),
    RESPONSES: ("input", "previous_response_id", "prompt", "conversation"),
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a check of an input file found. Without errors, `model` is set and `total` is at least 1."""

    errors: list[BatchError]
    total: int = 0
    model: str | None = None
    #: estimated input tokens of all requests
    tokens: int = 0


def cannot_find(file_id: str) -> Findings:
    """The findings for an input file that does not exist. OpenAI reports it late, as a failed batch."""
    message = f"Cannot find file {file_id}, or organization org-local does not have access to it."
    return Findings(errors=[BatchError(code="invalid_request", message=message, param="file_id")])


def token_limit(model: str, limit: int) -> BatchError:
    """The error of a batch that would put more input tokens of one model into the queue than it may hold."""
    return BatchError(
        code="token_limit_exceeded",
        message=f"Enqueued token limit reached for {model} in organization org-local. Limit: {limit:,}"
        " enqueued tokens. Please try again once some in_progress batches have been completed.",
    )


def request_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""The lines of an input file that are not blank, with their numbers from 1. Only `\n` ends a line.

    The file is open while a block is read, not while the lines are worked on: thousands of batches can run at once.
    """
    number = offset = 0
    while True:
        with open(path, "rb") as file:
            file.seek(offset)
            block = file.readlines(_BLOCK)
            offset = file.tell()
        if not block:
            return
        for raw in block:
            number += 1
            if raw.strip():
                yield number, raw


def validate(path: Path, endpoint: str, known_models: frozenset[str], urls: frozenset[str] = frozenset()) -> Findings:
    """Check an input file against its batch's endpoint; any model will do if `known_models` is empty.

    :param urls: what a line may have as its `url` beside the endpoint.
    """
    check = _Check(endpoint, known_models, urls)
    for number, raw in request_lines(path):
        if check.total == MAX_REQUESTS:
            check.problem(
                None,
                "too_many_tasks",
                f"The input file has more than {MAX_REQUESTS:,} requests, the limit of one batch.",
            )
            break
        check.total += 1
        try:
            check.line(number, raw)
        except RecursionError:
            check.unreadable(number)
    if check.total == 0:
        check.problem(
            None,
            "empty_file",
            "The input file is empty. Please ensure that the batch contains at least one request.",
        )
    if check.inputs > MAX_EMBEDDING_INPUTS:
        check.problem(
            None,
            "invalid_request",
            f"The input file has {check.inputs:,} embedding inputs over all its requests; a batch may have"
            f" {MAX_EMBEDDING_INPUTS:,}.",
            param="body.input",
        )
    return Findings(errors=check.errors, total=check.total, model=check.model, tokens=check.tokens)


class _Check:
    """The running state of one validation."""

    def __init__(self, endpoint: str, known_models: frozenset[str], urls: frozenset[str]) -> None:
        self.endpoint = endpoint
        self.urls = urls | {endpoint}
        self.known_models = known_models
        self.errors: list[BatchError] = []
        self.total = 0
        self.inputs = 0
        self.tokens = 0
        self.model: str | None = None
        self._seen: set[str] = set()

    def problem(self, line: int | None, code: str, message: str, *, param: str | None = None) -> None:
        self.errors.append(BatchError(code=code, message=message, param=param, line=line))

    def unreadable(self, number: int) -> None:
        self.problem(number, "invalid_json_line", "This line is not parseable as valid JSON.")

    def line(self, number: int, raw: bytes) -> None:
        try:
            request = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            request = None
        if not isinstance(request, dict):
            self.unreadable(number)
            return
        for name in _REQUIRED:
            if request.get(name) in (None, ""):
                self.problem(
                    number,
                    "missing_required_parameter",
                    f"Missing required parameter: '{name}'.",
                    param=name,
                )
                return
        self._envelope(number, request)
        if isinstance(request["body"], dict):
            self._body(number, request["body"])
        else:
            self.problem(number, "invalid_request", "Invalid type for 'body': expected an object.", param="body")

    def _envelope(self, number: int, request: dict[str, Any]) -> None:
        custom_id = request["custom_id"]
        if not isinstance(custom_id, str):
            self.problem(
                number,
                "invalid_request",
                "Invalid type for 'custom_id': expected a string.",
                param="custom_id",
            )
        elif custom_id in self._seen:
            self.problem(
                number,
                "duplicate_custom_id",
                f"The custom_id '{custom_id}' is used more than once; it must be unique in a batch.",
                param="custom_id",
            )
        else:
            self._seen.add(custom_id)
        if request["method"] != "POST":
            self.problem(
                number,
                "invalid_method",
                f"Invalid value: '{request['method']}'. Supported values are: 'POST'",
                param="method",
            )
        if str(request["url"]) not in self.urls:
            self.problem(
                number,
                "invalid_url",
                "The URL provided for this request does not match the batch endpoint.",
                param="url",
            )

    def _body(self, number: int, body: dict[str, Any]) -> None:
        self._model(number, model_of(self.endpoint, body))
        if body.get("stream") and self.endpoint in _STREAMING:
            self.problem(
                number,
                "streaming_unsupported",
                f"{_STREAMING[self.endpoint]}: Streaming is not supported in the Batch API.",
                param="body.stream",
            )
        asked = _ASKED.get(self.endpoint, ("input",))
        # A null `prompt` of a completions request asks for the beginning of a document.
        if all(body.get(name) is None for name in asked) and not (self.endpoint == COMPLETIONS and "prompt" in body):
            self.problem(
                number,
                "invalid_request",
                f"{asked[0].capitalize()} parameter is required.",
                param=f"body.{asked[0]}",
            )
        if self.endpoint == EMBEDDINGS:
            self.inputs += len(embedding_inputs(body))
        self.tokens += input_tokens(self.endpoint, body)

    def _model(self, number: int, model: object) -> None:
        if not isinstance(model, str) or not model:
            self.problem(number, "invalid_request", "Model parameter is required.", param="body.model")
        elif self.known_models and model not in self.known_models:
            self.problem(
                number,
                "model_not_found",
                f"The provided model '{model}' is not supported by the Batch API.",
                param="body.model",
            )
        elif self.model is None:
            self.model = model
        elif model != self.model:
            self.problem(
                number,
                "model_mismatch",
                f"The model '{model}' differs from '{self.model}' earlier in the file;"
                " an input file can only include requests to a single model.",
                param="body.model",
            )
