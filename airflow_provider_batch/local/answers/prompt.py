"""Reads a request: its texts, its output schema, and an estimate of its tokens.

These functions also read bodies that have not been validated. They return what they can and ignore the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.tokens import image_rules
from airflow_provider_batch.core.tokens.image_size import image_size, open_base64
from airflow_provider_batch.core.tokens.media import Kind, Media, read_media

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
#: the endpoints that this server supports
ENDPOINTS = (RESPONSES, CHAT, EMBEDDINGS, COMPLETIONS, MODERATIONS)
#: the endpoints that OpenAI's batches also accept (its API description, schema CreateBatchRequest)
UNSUPPORTED_ENDPOINTS = ("/v1/images/generations", "/v1/images/edits", "/v1/videos")

#: the prompt of a completions request whose `prompt` is null (openai SDK, `completions.create`)
_NO_PROMPT = "<|endoftext|>"
#: the model of a moderations request without `model` (OpenAI's API description, schema CreateModerationRequest)
MODERATION_MODEL = "omni-moderation-latest"

#: approximate number of tokens that the chat format adds to each message
_PER_MESSAGE = 3

#: width and height that are assumed for an image that is not part of the request, because this server downloads none
_LINKED_IMAGE = (1024, 1024)


class Conversation(NamedTuple):
    """The texts of a request, by role."""

    #: the texts of system and developer messages, and of `instructions`
    system: str
    #: the texts of all other messages
    user: str
    #: number of messages
    messages: int


def texts(content: object) -> Iterator[str]:
    """Yield the texts of a message's content, which is a string or a list of parts with `text`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
            elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield part["text"]


def read_conversation(endpoint: str, body: Mapping[str, Any]) -> Conversation:
    """Return the texts of `messages` (chat), of `instructions` and `input` (responses), or of the other inputs.

    Embeddings, completions and moderations have no messages: their whole input counts as the user's text.
    """
    if endpoint in (EMBEDDINGS, COMPLETIONS):
        inputs = embedding_inputs(body) if endpoint == EMBEDDINGS else prompts(body)
        return Conversation("", "\n".join(map(_input_text, inputs)), 0)
    if endpoint == MODERATIONS:
        return Conversation("", "\n".join(text for parts in moderation_inputs(body) for text in texts(parts)), 0)
    system: list[str] = []
    user: list[str] = []
    if endpoint == CHAT:
        messages = body.get("messages")
    else:
        system.extend(texts(body.get("instructions")))
        messages = body.get("input")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
    messages = messages if isinstance(messages, list) else []
    for message in messages:
        if isinstance(message, Mapping):
            role_texts = system if message.get("role") in ("system", "developer") else user
            role_texts.extend(texts(message.get("content")))
    return Conversation("\n".join(system), "\n".join(user), len(messages))


def _as_list(value: object) -> list[Any]:
    """Return the inputs in a parameter that holds one input or a list of them; a list of token ids is one input."""
    if isinstance(value, list) and value and not isinstance(value[0], int):
        return value
    return [] if value is None or value == [] else [value]


def _input_text(value: object) -> str:
    """Return a string unchanged, and a list of token ids as numbers separated by spaces."""
    return value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, list) else ""


def embedding_inputs(body: Mapping[str, Any]) -> list[Any]:
    """Return the inputs of an embeddings request, each a string or a list of token ids."""
    return _as_list(body.get("input"))


def prompts(body: Mapping[str, Any]) -> list[Any]:
    """Return the prompts of a completions request, each a string or a list of token ids."""
    return _as_list(_NO_PROMPT if body.get("prompt") is None else body["prompt"])


def moderation_inputs(body: Mapping[str, Any]) -> list[list[Any]]:
    """Return the inputs of a moderations request, each as its parts: strings, or objects with a text or an image.

    Each string in a list is a separate input. The objects in a list form a single input.
    """
    value = body.get("input")
    if not isinstance(value, list):
        return [] if value is None else [[value]]
    if all(isinstance(item, str) for item in value):
        return [[item] for item in value]
    return [value]


def model_of(endpoint: str, body: Mapping[str, Any]) -> Any:
    """Return the requested model, or the default of the endpoint if the request has no `model`."""
    model = body.get("model")
    return MODERATION_MODEL if model is None and endpoint == MODERATIONS else model


def output_format(endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the object with the requested JSON schema (`name`, `schema`, `strict`), or None without a schema."""
    if endpoint == CHAT:
        response_format = body.get("response_format")
        if isinstance(response_format, Mapping) and response_format.get("type") == "json_schema":
            inner = response_format.get("json_schema")
            return inner if isinstance(inner, Mapping) else {}
    if endpoint != RESPONSES:
        return None
    text = body.get("text")
    text_format = text.get("format") if isinstance(text, Mapping) else None
    is_schema = isinstance(text_format, Mapping) and text_format.get("type") == "json_schema"
    return text_format if is_schema else None


def estimate(text: str) -> int:
    """Estimate the tokens of a text: one per four UTF-8 bytes, rounded up."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def tokens_of_input(value: object) -> int:
    """Return the estimated tokens of a string, or the length of a list of token ids."""
    return estimate(value) if isinstance(value, str) else len(value) if isinstance(value, list) else 0


def image_tokens(endpoint: str, body: Mapping[str, Any]) -> int:
    """Return the tokens of the images in the messages of a request, by OpenAI's rules."""
    model = str(body.get("model"))
    return sum(image_rules.image_tokens(model, *_size(image), str(image.detail)) for image in _images(endpoint, body))


def _size(image: Media) -> tuple[int, int]:
    data = open_base64(image.source) if isinstance(image.source, str) else None
    return (data and image_size(data)) or _LINKED_IMAGE


def _images(endpoint: str, body: Mapping[str, Any]) -> Iterator[Media]:
    messages = body.get("messages" if endpoint == CHAT else "input")
    for message in messages if isinstance(messages, list) else []:
        parts = message.get("content") if isinstance(message, Mapping) else None
        for part in parts if isinstance(parts, list) else []:
            media = read_media(part) if isinstance(part, Mapping) else None
            if media is not None and media.kind is Kind.IMAGE:
                yield media


def input_tokens(endpoint: str, body: Mapping[str, Any]) -> int:
    """Estimate the input tokens of a request."""
    if endpoint in (EMBEDDINGS, COMPLETIONS):
        inputs = embedding_inputs(body) if endpoint == EMBEDDINGS else prompts(body)
        return sum(map(tokens_of_input, inputs))
    conversation = read_conversation(endpoint, body)
    if endpoint == MODERATIONS:
        return estimate(conversation.user)
    tokens = (
        image_tokens(endpoint, body)
        + estimate(conversation.system)
        + estimate(conversation.user)
        + _PER_MESSAGE * (conversation.messages + 1)
    )
    requested_format = output_format(endpoint, body)
    if requested_format is not None:
        tokens += estimate(msgspec.json.encode(requested_format).decode())
    return tokens
