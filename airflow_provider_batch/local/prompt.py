"""What a request says: its texts, its schema, and an estimate of its tokens.

Everything here is tolerant: it reads bodies that nobody has checked yet and takes from them what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
#: the endpoints that this server answers
ENDPOINTS = (RESPONSES, CHAT, EMBEDDINGS)

#: tokens that the chat format adds to each message, roughly
_PER_MESSAGE = 3


class Conversation(NamedTuple):
    """The texts of a chat or responses request, by who speaks."""

    #: system and developer messages, and `instructions`
    system: str
    #: what the user says
    user: str
    messages: int


def texts(content: object) -> Iterator[str]:
    """The texts of a message's content: a string, or parts that carry `text`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
            elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield part["text"]


def conversation(endpoint: str, body: Mapping[str, Any]) -> Conversation:
    """The texts of `messages` (chat) or of `instructions` and `input` (responses)."""
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
            side = system if message.get("role") in ("system", "developer") else user
            side.extend(texts(message.get("content")))
    return Conversation("\n".join(system), "\n".join(user), len(messages))


def embedding_inputs(body: Mapping[str, Any]) -> list[Any]:
    """The inputs of an embeddings request, each a string or a list of token ids."""
    given = body.get("input")
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [] if given is None or given == [] else [given]


def output_schema(endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The format object that carries a JSON schema (`name`, `schema`, `strict`), if one is requested."""
    if endpoint == CHAT:
        form = body.get("response_format")
        if isinstance(form, Mapping) and form.get("type") == "json_schema":
            inner = form.get("json_schema")
            return inner if isinstance(inner, Mapping) else {}
        return None
    text = body.get("text")
    form = text.get("format") if isinstance(text, Mapping) else None
    return form if isinstance(form, Mapping) and form.get("type") == "json_schema" else None


def estimate(text: str) -> int:
    """Tokens of a text, estimated: four UTF-8 bytes each, rounded up."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def input_tokens(endpoint: str, body: Mapping[str, Any]) -> int:
    """Input tokens of a request, estimated."""
    if endpoint == EMBEDDINGS:
        return sum(
            estimate(item) if isinstance(item, str) else len(item) if isinstance(item, list) else 0
            for item in embedding_inputs(body)
        )
    talk = conversation(endpoint, body)
    tokens = estimate(talk.system) + estimate(talk.user) + _PER_MESSAGE * (talk.messages + 1)
    schema = output_schema(endpoint, body)
    if schema is not None:
        tokens += estimate(msgspec.json.encode(schema).decode())
    return tokens
