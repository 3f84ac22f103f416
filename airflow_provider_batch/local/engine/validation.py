"""Checks the whole input file of a batch before any of its requests runs.

Every problem becomes one error with the number of its line, counted from 1. A single bad line fails the batch. Blank
lines are skipped. Codes and messages are OpenAI's where they are documented. This server defines the rest itself: the
codes for too many requests, too many embedding inputs and a second model, the message for a duplicate custom_id, and
the messages for endpoints other than chat.

A moderations request with `stream` does not fail the batch. Only the request itself fails, when it is answered (OpenAI,
Batch guide). The same applies to an embeddings request with `stream`, because embeddings cannot be streamed.
"""

from __future__ import annotations

import re
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
from airflow_provider_batch.local.dialects import OPENAI, Dialect
from airflow_provider_batch.local.settings import MAX_EMBEDDING_INPUTS, MAX_REQUESTS

#: approximate bytes of whole lines to read from an input file in one go
_BLOCK_SIZE = 32_768
#: U+2028, U+2029 and U+0085 in UTF-8
_UNICODE_LINE_END = re.compile(b"\xe2\x80[\xa8\xa9]|\xc2\x85")
_REQUIRED = ("custom_id", "method", "url", "body")
#: the endpoints that support streaming outside a batch, with their names in messages
_STREAMING = {CHAT: "Chat Completions", RESPONSES: "Responses", COMPLETIONS: "Completions"}
#: endpoint -> parameters, at least one of which a request needs; the error message names the first
_INPUT_PARAMETERS = {
    CHAT: ("messages",),
    COMPLETIONS: ("prompt",),
    RESPONSES: ("input", "previous_response_id", "prompt", "conversation"),
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The result of checking an input file. Without errors, `model` is set and `total` is at least 1."""

    errors: list[BatchError]
    #: number of requests
    total: int = 0
    model: str | None = None
    #: estimated input tokens of all requests
    tokens: int = 0


def missing_file_findings(file_id: str) -> Findings:
    """Return the findings for an input file that does not exist. OpenAI reports it late, by failing the batch."""
    message = f"Cannot find file {file_id}, or organization org-local does not have access to it."
    return Findings(errors=[BatchError(code="invalid_request", message=message, param="file_id")])


def token_limit_error(model: str, limit: int) -> BatchError:
    """Return the error of a batch that would exceed the enqueued-token limit of its model."""
    return BatchError(
        code="token_limit_exceeded",
        message=f"Enqueued token limit reached for {model} in organization org-local. Limit: {limit:,}"
        " enqueued tokens. Please try again once some in_progress batches have been completed.",
    )


def request_lines(path: Path, dialect: Dialect = OPENAI) -> Iterator[tuple[int, bytes]]:
    r"""Yield the number of each line of an input file, counted from 1, and its bytes. Blank lines are skipped.

    Only `\n` ends a line, unless the dialect says otherwise. The file is open only while a block is read, not while its
    lines are processed, so that thousands of batches can run concurrently.
    """
    unicode_line_ends, skip_broken = "unicode-line-ends" in dialect, "skip-broken-lines" in dialect
    number = offset = 0
    while True:
        with open(path, "rb") as file:
            file.seek(offset)
            block = file.readlines(_BLOCK_SIZE)
            offset = file.tell()
        if not block:
            return
        if unicode_line_ends:
            block = [part for raw in block for part in _UNICODE_LINE_END.split(raw)]
        for raw in block:
            number += 1
            if raw.strip() and not (skip_broken and not _is_json(raw)):
                yield number, raw


def _is_json(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def validate(path: Path, endpoint: str, known_models: frozenset[str], dialect: Dialect = OPENAI) -> Findings:
    """Check an input file.

    :param endpoint: the endpoint of the batch.
    :param known_models: the models that requests may use; empty allows every model.
    """
    validation = _Validation(endpoint, known_models, dialect.urls(endpoint))
    for number, raw in request_lines(path, dialect):
        if validation.total == MAX_REQUESTS:
            validation.add_error(
                None,
                "too_many_tasks",
                f"The input file has more than {MAX_REQUESTS:,} requests, the limit of one batch.",
            )
            break
        validation.total += 1
        try:
            validation.check_line(number, raw)
        except RecursionError:
            validation.add_unreadable_line(number)
    if validation.total == 0:
        validation.add_error(
            None,
            "empty_file",
            "The input file is empty. Please ensure that the batch contains at least one request.",
        )
    if validation.inputs > MAX_EMBEDDING_INPUTS:
        validation.add_error(
            None,
            "invalid_request",
            f"The input file has {validation.inputs:,} embedding inputs in total; the limit of one batch is"
            f" {MAX_EMBEDDING_INPUTS:,}.",
            param="body.input",
        )
    return Findings(errors=validation.errors, total=validation.total, model=validation.model, tokens=validation.tokens)


class _Validation:
    """The errors and counts of one input file, collected line by line."""

    def __init__(self, endpoint: str, known_models: frozenset[str], urls: frozenset[str]) -> None:
        self.endpoint = endpoint
        self.urls = urls
        self.known_models = known_models
        self.errors: list[BatchError] = []
        self.total = 0
        self.inputs = 0
        self.tokens = 0
        self.model: str | None = None
        self._custom_ids: set[str] = set()

    def add_error(self, line: int | None, code: str, message: str, *, param: str | None = None) -> None:
        self.errors.append(BatchError(code=code, message=message, param=param, line=line))

    def add_unreadable_line(self, number: int) -> None:
        self.add_error(number, "invalid_json_line", "This line is not parseable as valid JSON.")

    def check_line(self, number: int, raw: bytes) -> None:
        try:
            request = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            request = None
        if not isinstance(request, dict):
            self.add_unreadable_line(number)
            return
        for name in _REQUIRED:
            if request.get(name) in (None, ""):
                self.add_error(
                    number,
                    "missing_required_parameter",
                    f"Missing required parameter: '{name}'.",
                    param=name,
                )
                return
        self._check_envelope(number, request)
        if isinstance(request["body"], dict):
            self._check_body(number, request["body"])
        else:
            self.add_error(number, "invalid_request", "Invalid type for 'body': expected an object.", param="body")

    def _check_envelope(self, number: int, request: dict[str, Any]) -> None:
        custom_id = request["custom_id"]
        if not isinstance(custom_id, str):
            self.add_error(
                number,
                "invalid_request",
                "Invalid type for 'custom_id': expected a string.",
                param="custom_id",
            )
        elif custom_id in self._custom_ids:
            self.add_error(
                number,
                "duplicate_custom_id",
                f"The custom_id '{custom_id}' is used more than once; it must be unique in a batch.",
                param="custom_id",
            )
        else:
            self._custom_ids.add(custom_id)
        if request["method"] != "POST":
            self.add_error(
                number,
                "invalid_method",
                f"Invalid value: '{request['method']}'. Supported values are: 'POST'",
                param="method",
            )
        if str(request["url"]) not in self.urls:
            self.add_error(
                number,
                "invalid_url",
                "The URL provided for this request does not match the batch endpoint.",
                param="url",
            )

    def _check_body(self, number: int, body: dict[str, Any]) -> None:
        self._check_model(number, model_of(self.endpoint, body))
        if body.get("stream") and self.endpoint in _STREAMING:
            self.add_error(
                number,
                "streaming_unsupported",
                f"{_STREAMING[self.endpoint]}: Streaming is not supported in the Batch API.",
                param="body.stream",
            )
        parameters = _INPUT_PARAMETERS.get(self.endpoint, ("input",))
        # a completions request may have a null `prompt`: it stands for the beginning of a document
        if all(body.get(name) is None for name in parameters) and not (
            self.endpoint == COMPLETIONS and "prompt" in body
        ):
            self.add_error(
                number,
                "invalid_request",
                f"{parameters[0].capitalize()} parameter is required.",
                param=f"body.{parameters[0]}",
            )
        if self.endpoint == EMBEDDINGS:
            self.inputs += len(embedding_inputs(body))
        self.tokens += input_tokens(self.endpoint, body)

    def _check_model(self, number: int, model: object) -> None:
        if not isinstance(model, str) or not model:
            self.add_error(number, "invalid_request", "Model parameter is required.", param="body.model")
        elif self.known_models and model not in self.known_models:
            self.add_error(
                number,
                "model_not_found",
                f"The provided model '{model}' is not supported by the Batch API.",
                param="body.model",
            )
        elif self.model is None:
            self.model = model
        elif model != self.model:
            self.add_error(
                number,
                "model_mismatch",
                f"The model '{model}' differs from '{self.model}' earlier in the file;"
                " an input file can only include requests to a single model.",
                param="body.model",
            )
