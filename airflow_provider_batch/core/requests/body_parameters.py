"""What happens to each parameter of a request body.

A parameter may change what comes back: more than one answer, no text, or an answer that arrives later. Whatever would
be paid for and could not land is refused here, before anything is sent. Everything else passes through unchanged, also
parameters that this module does not know, because compatible servers have their own. A misspelt parameter is refused.

The keys are those of the request schemas of the OpenAI SDK; a test compares them. `docs/how-to/body-parameters.md` is
rendered from these tables.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from airflow_provider_batch.exceptions import InputError

#: ratio of `difflib` above which a name is taken for a misspelt one. Parameters of compatible servers stay below it:
#: `top_k` and `top_p` have 0.8, `models` and `model` 0.91.
_SIMILARITY = 0.92


class Parameter(NamedTuple):
    """A parameter of a request body."""

    #: what happens to it, for the documentation
    effect: str
    #: returns what is wrong with its value and what to do, or None
    problem: Callable[[Any], str | None] | None = None
    #: the same for a value that is the same for every row, in addition
    constant_problem: Callable[[Any], str | None] | None = None


def check_keys(body: Mapping[str, Any]) -> None:
    """Raise InputError if the body has keys that are not parameters, or that exclude each other."""
    for key in body:
        if key in CLIENT_ARGUMENTS:
            raise InputError(f"Remove {key!r} from the body. {CLIENT_ARGUMENTS[key]}")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise InputError("The body sets both 'max_tokens' and 'max_completion_tokens'. Give only the second one.")


def check_spelling(path: str, body: Mapping[str, Any]) -> None:
    """Raise InputError if a key of the body looks like a parameter of the endpoint with a typing error.

    Other unknown keys pass, because compatible servers have parameters of their own.
    """
    parameters = PARAMETERS[path]
    for key in body:
        if key in parameters:
            continue
        snake_case = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower().replace("-", "_")
        similar = difflib.get_close_matches(snake_case, parameters, n=1, cutoff=_SIMILARITY)
        if similar:
            raise InputError(f"{path} has no parameter {key!r}. Did you mean {similar[0]!r}?")


def check_parameters(path: str, body: Mapping[str, Any], *, is_constant: bool = False) -> None:
    """Raise InputError if a parameter of the body asks for something that cannot land.

    :param is_constant: whether the values are the same for every row.
    """
    for key, parameter in PARAMETERS[path].items():
        value = body.get(key)
        if value is None:
            continue
        checks = (parameter.problem, parameter.constant_problem if is_constant else None)
        for check in checks:
            problem = None if check is None else check(value)
            if problem:
                raise InputError(problem)


def keys_with_problems(path: str) -> frozenset[str]:
    """Return the parameters whose values need a check."""
    return frozenset(key for key, parameter in PARAMETERS[path].items() if parameter.problem is not None)


def _several_answers(value: Any) -> str | None:
    if value == 1:
        return None
    return (
        f"Remove 'n' from the body: a row has one answer, and with n={value!r} the others would be paid for and "
        "dropped. To get several answers, return the row several times from the SQL, each with its own custom_id, and "
        "set deduplicate=False."
    )


def _stream_options(value: Any) -> str:
    return "Remove 'stream_options' from the body. Batches do not stream."


def _audio(value: Any) -> str:
    return "Remove 'audio' from the body. Only text can land, so audio would be paid for and dropped."


def _modalities(value: Any) -> str | None:
    if value in (["text"], []):
        return None
    return f"Remove 'modalities' from the body: only text can land, so {value!r} would be paid for and dropped."


def _background(value: Any) -> str | None:
    if not value:
        return None
    return (
        "Remove 'background' from the body. The batch would contain responses that are still running, and their "
        "answers would never land."
    )


def _conversation(value: Any) -> str:
    return (
        "Remove 'conversation' from the body. The rows of a batch run at the same time and in any order, so an answer "
        "would depend on chance. Put the earlier messages into 'input', or use 'previous_response_id'."
    )


def _service_tier(value: Any) -> str | None:
    if value not in ("flex", "priority", "fast", "ultrafast", "scale"):
        return None
    return (
        f"Remove 'service_tier' from the body. A batch has a price of its own, so with {value!r} the estimate and "
        "max_cost_usd would not hold."
    )


def _encoding_format(value: Any) -> str | None:
    if value in ("float", "base64"):
        return None
    return f"'encoding_format' must be 'float' or 'base64', not {value!r}. No other format can be read as vectors."


def _has_schema(format: Any) -> bool:
    return isinstance(format, Mapping) and format.get("type") == "json_schema"


def _response_format(value: Any) -> str | None:
    return _schema_in_body("response_format") if _has_schema(value) else None


def _text_format(value: Any) -> str | None:
    return _schema_in_body("text.format") if isinstance(value, Mapping) and _has_schema(value.get("format")) else None


def _schema_in_body(key: str) -> str:
    return (
        f"Give the schema in {key!r} as the argument output_schema, which sends it. Answers are then checked against "
        "it, and `columns=` can land its fields."
    )


def _stream(value: Any) -> str | None:
    return "Remove 'stream' from the body. A single streaming request makes the whole batch fail." if value else None


#: arguments of the SDK's methods that are not parameters of the API
CLIENT_ARGUMENTS = {
    "extra_body": "Put what is in it directly into the body.",
    "extra_headers": "Headers belong to the connection; a batch has no headers per request.",
    "extra_query": "A batch has no query parameters per request.",
    "timeout": "A batch has no timeout per request.",
}

_ARGUMENT = "set by the argument `{}`"
_TUNES = "passes through; changes what the model writes"
_NOT_LANDED = "passes through; what it adds to the response lands in `response` with `store_response=True`"
_PROVIDER = "passes through; concerns only the provider"
_CALLS = (
    "passes through; calls land in `output` as JSON. With `output_schema`, the arguments of a single call are the "
    "answer, and any other call is `invalid_output`"
)
_STREAM = Parameter("refused if true: batches do not stream", _stream)
_STREAM_OPTIONS = Parameter("refused: batches do not stream", _stream_options)
_N = Parameter("refused unless it is 1: a row has one answer", _several_answers)
_SERVICE_TIER = Parameter(
    "`auto` and `default` pass through; other tiers are refused, because a batch has its own price", _service_tier
)
_CAP = "passes through, or set by `max_output_tokens`; with both, refused"
_LOGPROBS = Parameter(_NOT_LANDED)
_MODEL = Parameter(_ARGUMENT.format("model") + ", or in the body")
_STOP = Parameter("passes through; an answer that ends at such a text is complete, and is `succeeded`")

#: by endpoint
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "/v1/chat/completions": {
        "messages": Parameter(_ARGUMENT.format("prompt") + " and `system`, or in the body; with both, refused"),
        "model": _MODEL,
        "audio": Parameter("refused: only text can land", _audio),
        "frequency_penalty": Parameter(_TUNES),
        "function_call": Parameter(_CALLS),
        "functions": Parameter(_CALLS),
        "logit_bias": Parameter(_TUNES),
        "logprobs": _LOGPROBS,
        "max_completion_tokens": Parameter(_CAP),
        "max_tokens": Parameter(_CAP + "; also refused next to `max_completion_tokens`"),
        "metadata": Parameter(_PROVIDER),
        "modalities": Parameter('refused unless it is `["text"]`: only text can land', _modalities),
        "moderation": Parameter(_NOT_LANDED),
        "n": _N,
        "parallel_tool_calls": Parameter("passes through; several calls in one answer land together, see `tools`"),
        "prediction": Parameter(_PROVIDER),
        "presence_penalty": Parameter(_TUNES),
        "prompt_cache_key": Parameter(_PROVIDER),
        "prompt_cache_options": Parameter(_PROVIDER),
        "prompt_cache_retention": Parameter(_PROVIDER),
        "reasoning_effort": Parameter(_TUNES),
        "response_format": Parameter(
            "`text` and `json_object` pass through, and the answer lands as text. A `json_schema` that is the same for "
            "every row is refused: give it as `output_schema`, which sends and checks it. One that depends on the row "
            "passes through and is not checked",
            constant_problem=_response_format,
        ),
        "safety_identifier": Parameter(_PROVIDER),
        "seed": Parameter(_TUNES),
        "service_tier": _SERVICE_TIER,
        "stop": _STOP,
        "store": Parameter(_PROVIDER),
        "stream": _STREAM,
        "stream_options": _STREAM_OPTIONS,
        "temperature": Parameter(_TUNES),
        "tool_choice": Parameter(_CALLS),
        "tools": Parameter(_CALLS),
        "top_logprobs": _LOGPROBS,
        "top_p": Parameter(_TUNES),
        "user": Parameter(_PROVIDER),
        "verbosity": Parameter(_TUNES),
        "web_search_options": Parameter(
            "passes through; citations land in `response` with `store_response=True`. The fee of a search is not in "
            "`cost_usd`"
        ),
    },
    "/v1/responses": {
        "input": Parameter(_ARGUMENT.format("prompt") + ", or in the body; with both, refused"),
        "model": _MODEL,
        "access_programs": Parameter(_PROVIDER),
        "background": Parameter("refused if true: the batch would end before the answer exists", _background),
        "context_management": Parameter(_TUNES),
        "conversation": Parameter("refused: rows run at the same time and would share it", _conversation),
        "image": Parameter("passes through; concerns images in the input"),
        "include": Parameter(_NOT_LANDED),
        "instructions": Parameter(_ARGUMENT.format("system") + ", or in the body; with both, refused"),
        "max_output_tokens": Parameter("set by the argument of the same name, or in the body; with both, refused"),
        "max_tool_calls": Parameter(_TUNES),
        "metadata": Parameter(_PROVIDER),
        "moderation": Parameter(_NOT_LANDED),
        "parallel_tool_calls": Parameter("passes through; several calls in one answer land together, see `tools`"),
        "previous_response_id": Parameter(
            "passes through; the earlier conversation is billed as input and is not in the first estimate"
        ),
        "prompt": Parameter(
            "a prompt stored at the provider; passes through instead of `input`. Its text is not in the first estimate"
        ),
        "prompt_cache_key": Parameter(_PROVIDER),
        "prompt_cache_options": Parameter(_PROVIDER),
        "prompt_cache_retention": Parameter(_PROVIDER),
        "reasoning": Parameter(_TUNES + ". A `summary` lands in `response` with `store_response=True`"),
        "safety_identifier": Parameter(_PROVIDER),
        "service_tier": _SERVICE_TIER,
        "store": Parameter(_PROVIDER),
        "stream": _STREAM,
        "stream_options": _STREAM_OPTIONS,
        "temperature": Parameter(_TUNES),
        "text": Parameter(
            "`verbosity` passes through. `format` is treated like `response_format` of chat completions",
            constant_problem=_text_format,
        ),
        "tool_choice": Parameter(_CALLS),
        "tools": Parameter(
            _CALLS + ". Tools of the provider (web search, code interpreter) run there, and the text lands; their fees "
            "are not in `cost_usd`"
        ),
        "top_logprobs": _LOGPROBS,
        "top_p": Parameter(_TUNES),
        "truncation": Parameter("passes through; with `auto`, the provider may drop a part of the input"),
        "user": Parameter(_PROVIDER),
    },
    "/v1/embeddings": {
        "input": Parameter(_ARGUMENT.format("prompt") + ", or in the body; with both, refused"),
        "model": _MODEL,
        "dimensions": Parameter("passes through; the length of the vectors that land"),
        "encoding_format": Parameter("`base64` unless the body sets `float`; both land as vectors", _encoding_format),
        "user": Parameter(_PROVIDER),
    },
    "/v1/completions": {
        "prompt": Parameter(_ARGUMENT.format("prompt") + ", or in the body; with both, refused"),
        "model": _MODEL,
        "best_of": Parameter("passes through; the best answer lands, and the estimate counts all of them"),
        "echo": Parameter("passes through; the prompt is a part of the text that lands"),
        "frequency_penalty": Parameter(_TUNES),
        "logit_bias": Parameter(_TUNES),
        "logprobs": _LOGPROBS,
        "max_tokens": Parameter(_CAP),
        "n": _N,
        "presence_penalty": Parameter(_TUNES),
        "seed": Parameter(_TUNES),
        "stop": _STOP,
        "stream": _STREAM,
        "stream_options": _STREAM_OPTIONS,
        "suffix": Parameter(_TUNES),
        "temperature": Parameter(_TUNES),
        "top_p": Parameter(_TUNES),
        "user": Parameter(_PROVIDER),
    },
    "/v1/moderations": {
        "input": Parameter(_ARGUMENT.format("prompt") + ", or in the body; with both, refused"),
        "model": _MODEL,
    },
}
