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
COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
#: the endpoints that this server answers
ENDPOINTS = (RESPONSES, CHAT, EMBEDDINGS, COMPLETIONS, MODERATIONS)
#: the endpoints that OpenAI's batches take besides (its API description, schema CreateBatchRequest)
UNSUPPORTED_ENDPOINTS = ("/v1/images/generations", "/v1/images/edits", "/v1/videos")

#: what a completions request with a null `prompt` asks (openai SDK, `completions.create`)
_NO_PROMPT = "<|endoftext|>"
#: the model of a moderations request that names none (OpenAI's API description, schema CreateModerationRequest)
MODERATION_MODEL = "omni-moderation-latest"

#: tokens that the chat format adds to each message, roughly
_PER_MESSAGE = 3


class Conversation(NamedTuple):
    """The texts of a request, by who speaks."""

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
    """The texts of `messages` (chat), of `instructions` and `input` (responses), or of what else is to be answered.

    Embeddings, completions and moderations have no messages; all they ask is the user's.
    """
    if endpoint in (EMBEDDINGS, COMPLETIONS):
        inputs = embedding_inputs(body) if endpoint == EMBEDDINGS else prompts(body)
        return Conversation("", "\n".join(map(_said, inputs)), 0)
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
            side = system if message.get("role") in ("system", "developer") else user
            side.extend(texts(message.get("content")))
    return Conversation("\n".join(system), "\n".join(user), len(messages))


def _one_or_several(given: object) -> list[Any]:
    """Strings or lists of token ids, given singly or as a list."""
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [] if given is None or given == [] else [given]


def _said(given: object) -> str:
    """A string as it is, a list of token ids as numbers."""
    return given if isinstance(given, str) else " ".join(map(str, given)) if isinstance(given, list) else ""


def embedding_inputs(body: Mapping[str, Any]) -> list[Any]:
    """The inputs of an embeddings request, each a string or a list of token ids."""
    return _one_or_several(body.get("input"))


def prompts(body: Mapping[str, Any]) -> list[Any]:
    """The prompts of a completions request, each a string or a list of token ids."""
    return _one_or_several(_NO_PROMPT if body.get("prompt") is None else body["prompt"])


def moderation_inputs(body: Mapping[str, Any]) -> list[list[Any]]:
    """The inputs of a moderations request, each as its parts: strings, or objects with a text or an image.

    Every string of a list is judged for itself; the objects of a list are judged together.
    """
    given = body.get("input")
    if not isinstance(given, list):
        return [] if given is None else [[given]]
    if all(isinstance(item, str) for item in given):
        return [[item] for item in given]
    return [given]


def model_of(endpoint: str, body: Mapping[str, Any]) -> Any:
    """The model that a request names, or the one that its endpoint takes if it names none."""
    named = body.get("model")
    return MODERATION_MODEL if named is None and endpoint == MODERATIONS else named


def output_schema(endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The format object that carries a JSON schema (`name`, `schema`, `strict`), if one is requested."""
    if endpoint == CHAT:
        form = body.get("response_format")
        if isinstance(form, Mapping) and form.get("type") == "json_schema":
            inner = form.get("json_schema")
            return inner if isinstance(inner, Mapping) else {}
    if endpoint != RESPONSES:
        return None
    text = body.get("text")
    form = text.get("format") if isinstance(text, Mapping) else None
    return form if isinstance(form, Mapping) and form.get("type") == "json_schema" else None


def estimate(text: str) -> int:
    """Tokens of a text, estimated: four UTF-8 bytes each, rounded up."""
    return (len(text.encode("utf-8", "surrogatepass")) + 3) // 4


def tokens_of_input(given: object) -> int:
    """Tokens of a string, estimated, or of a list of token ids."""
    return estimate(given) if isinstance(given, str) else len(given) if isinstance(given, list) else 0


def input_tokens(endpoint: str, body: Mapping[str, Any]) -> int:
    """Input tokens of a request, estimated."""
    if endpoint in (EMBEDDINGS, COMPLETIONS):
        inputs = embedding_inputs(body) if endpoint == EMBEDDINGS else prompts(body)
        return sum(map(tokens_of_input, inputs))
    talk = conversation(endpoint, body)
    if endpoint == MODERATIONS:
        return estimate(talk.user)
    tokens = estimate(talk.system) + estimate(talk.user) + _PER_MESSAGE * (talk.messages + 1)
    schema = output_schema(endpoint, body)
    if schema is not None:
        tokens += estimate(msgspec.json.encode(schema).decode())
    return tokens
