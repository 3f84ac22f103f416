"""Checks of the values in a connection, before a client is built from them.

The client would report most mistakes only with the first call, as "Connection error." or as an error of the encoder
that shows the key. These checks name the field, say what is wrong with it, and never show a secret.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

#: keys of a connection's extra that mean something here or to the hook of the OpenAI provider
EXTRA_KEYS = frozenset(
    {
        *("openai_client_kwargs", "auth_type", "batch_limits", "batch_budget", "batch_prices", "batch_flex"),
        *("workload_identity_provider", "identity_provider_id", "service_account_id", "refresh_buffer_seconds"),
        *("token_file_path", "resource", "object_id", "client_id", "msi_res_id", "api_version", "audience"),
        *("token_provider", "token_type"),
    }
)
#: text that stands for a key in documentation and templates
_PLACEHOLDER = re.compile(
    r"<.*>|\{.*\}|\[.*\]|\$.*|%.*%|.*\.\.\.|.*…|\*+|x{3,}|sk-[x*]+|changeme|placeholder"
    r"|(.*[-_ ])?(your|insert|paste|replace|enter)[-_ ].*|(openai_)?api_?key",
    re.IGNORECASE,
)
#: ends of the addresses of single endpoints
_ENDPOINT_PATH = re.compile(
    r"/(chat/completions|chat|completions|responses|embeddings|moderations|batches|files|models)/?\Z"
)
_OPENAI_HOST = "api.openai.com"
#: hosts of OpenAI's website, which people copy from the browser
_WEBSITES = ("openai.com", "www.openai.com", "platform.openai.com", "chat.openai.com", "chatgpt.com")


def connection_problem(
    *, api_key: Any, base_url: Any, client_arguments: Mapping[str, Any], known_arguments: Collection[str]
) -> str | None:
    """Return what is wrong with the values that a client is built from, or None if nothing is.

    The sentence names the field as a person sees it in the form of the connection. It never contains a secret.

    :param api_key: None if the key comes from elsewhere.
    :param base_url: None for the client's default.
    :param client_arguments: the other values of `openai_client_kwargs`.
    :param known_arguments: names of the arguments that the client takes.
    """
    problems = _client_argument_problems(client_arguments, known_arguments)
    return api_key_problem(api_key) or base_url_problem(base_url) or next(problems, None)


def ignored_field_problem(host: str | None, port: int | None, schema: str | None) -> str | None:
    """Return which fields of a connection have no effect although they are set, or None if there are none."""
    base_url = host or ""
    parts = [f":{port}"] if port and f":{port}" not in base_url else []
    parts += [f"/{schema}"] if schema and schema not in base_url else []
    if not parts:
        return None
    return (
        "its port and its schema have no effect. Write the whole address into the field Host: "
        f"{_without_userinfo(base_url.rstrip('/'))}{''.join(parts)}"
    )


def extra_problem(text: str | None, extra: Any, known_arguments: Collection[str]) -> str | None:
    """Return what is wrong with the keys of a connection's extra, or None if nothing is. Unrelated keys are ignored.

    :param text: the extra as it is stored. Airflow takes text that is not JSON for an empty object.
    :param known_arguments: names of the arguments that the client takes.
    """
    if not isinstance(extra, Mapping) or not _is_json(text or "{}"):
        return "the extra must be a JSON object"
    for key in extra:
        if key in EXTRA_KEYS:
            continue
        if key in known_arguments:
            return f'the key {key!r} of the extra has no effect there. Move it into the object "openai_client_kwargs"'
        similar_keys = difflib.get_close_matches(str(key), EXTRA_KEYS, n=1, cutoff=0.8)
        if similar_keys:
            return f"the key {key!r} of the extra is unknown. Did you mean {similar_keys[0]!r}?"
    if not isinstance(extra.get("openai_client_kwargs") or {}, Mapping):
        return 'the key "openai_client_kwargs" of the extra must be an object, such as {"timeout": 60}'
    return None


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


def api_key_problem(key: Any) -> str | None:
    """Return what is wrong with an API key, without showing it, or None if nothing is."""
    field = "the API key (field API Key)"
    if key is None:
        return None
    if not isinstance(key, str):
        return f"{field} must be text"
    if not key.strip():
        return f"{field} is empty"
    if re.match(r"\s*(authorization:\s*)?bearer\b", key, re.IGNORECASE):
        return f'{field} starts with "Bearer". Enter the key alone'
    character = _unusable_character(key)
    if character is not None:
        return f"{field} {character}. Copy the key once more"
    if key[0] in "\"'`" or key[-1] in "\"'`":
        return f"{field} is between quotes. Enter the key alone"
    if " " in key:
        return f"{field} contains a space"
    if _PLACEHOLDER.fullmatch(key):
        return f"{field} is a placeholder, not a key"
    return None


def header_problem(field: str, value: Any) -> str | None:
    """Return why a value cannot be sent as a header, without showing it, or None if it can."""
    if not isinstance(value, str):
        return f"{field} must be text, not {type(value).__name__}"
    if not value.strip():
        return f"{field} is empty. Remove it, or enter a value"
    character = _unusable_character(value)
    return None if character is None else f"{field} {character}"


def base_url_problem(url: Any) -> str | None:
    """Return what is wrong with a base URL, or None if nothing is."""
    field = "the base URL (field Host)"
    if url is None:
        return None
    if not isinstance(url, str):
        return f"{field} must be text, not {type(url).__name__}"
    character = _unusable_character(url)
    if character is not None:
        return f"{field} {character}. Remove it"
    if " " in url:
        return f"{field} contains a space"
    if not re.match(r"[a-z][a-z0-9+.-]*://", url, re.IGNORECASE):
        address = re.sub(r"\A\w*:?/+", "", url)
        address = f"{_OPENAI_HOST}/v1" if address.rstrip("/") == _OPENAI_HOST else address
        is_local = re.match(r"(localhost|127\.|\[::1\]|0\.0\.0\.0)", address) is not None
        return f"{field} has no scheme. Did you mean {'http' if is_local else 'https'}://{_without_userinfo(address)}?"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"{field} has an invalid port or address. Expected an address such as https://api.openai.com/v1"
    return _address_problem(field, parts)


def _address_problem(field: str, parts: SplitResult) -> str | None:
    host, path = parts.hostname or "", parts.path
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.scheme.lower() not in ("http", "https"):
        return f"{field} starts with {parts.scheme}://, but it must start with https:// or http://"
    if not host:
        return f"{field} names no host. Expected an address such as https://api.openai.com/v1"
    if re.search(r"[<>{}$%*]|your[-_]|-name\.", host, re.IGNORECASE):
        return f"{field} contains a placeholder: {host}"
    if parts.port == 0:
        return f"{field} has the port 0"
    if parts.query or parts.fragment:
        return (
            f"{field} has a query or a fragment, which the client cannot extend by a path. Move the query into "
            '"default_query" in "openai_client_kwargs"'
        )
    if host in _WEBSITES:
        return f"{field} is the address of a website. The address of the API is https://api.openai.com/v1"
    endpoint = _ENDPOINT_PATH.search(path)
    if endpoint is not None:
        return (
            f"{field} is the address of one endpoint. Remove {endpoint.group()!r} at its end: "
            f"{origin}{path[: endpoint.start()]}"
        )
    if (host == _OPENAI_HOST or host.endswith(f".{_OPENAI_HOST}")) and path.rstrip("/") != "/v1":
        return f"{field} has the path {path or '/'!r}, but the API of OpenAI is at {origin}/v1"
    return None


def _client_argument_problems(arguments: Mapping[str, Any], known_arguments: Collection[str]) -> Iterator[str]:
    for name, value in arguments.items():
        field = f"{name!r} in openai_client_kwargs"
        problem: str | None = None
        if name not in known_arguments:
            similar_names = difflib.get_close_matches(str(name), known_arguments, n=1)
            advice = f"Did you mean {similar_names[0]!r}?" if similar_names else "The client has no such argument"
            yield f"{field} is unknown. {advice}"
        if value is None:
            continue
        if name in ("organization", "project"):
            problem = header_problem(field, value)
            other, prefix = ("project", "proj_") if name == "organization" else ("organization", "org-")
            if problem is None and value.startswith(prefix):
                problem = f"{field} is the id of {'a project' if other == 'project' else 'an organization'}"
            if problem is None and " " in value:
                problem = f"{field} contains a space. Enter the id, not the name"
        elif name in ("default_headers", "default_query"):
            problem = _mapping_problem(field, value, are_headers=name == "default_headers")
        elif name == "timeout" and not (type(value) in (int, float) and 0 < value < float("inf")):
            problem = f"{field} must be a number of seconds greater than 0, not {value!r}"
        elif name == "max_retries" and not (type(value) is int and value >= 0):
            problem = f"{field} must be a whole number of at least 0, not {value!r}"
        if problem is not None:
            yield problem


def _mapping_problem(field: str, value: Any, *, are_headers: bool) -> str | None:
    if not isinstance(value, Mapping):
        return f"{field} must be an object, not {type(value).__name__}"
    for name, item in value.items():
        if are_headers and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", str(name)):
            return f"{field} has the header {name!r}, which is not a valid name"
        problem = header_problem(f"{name!r} in {field}", item) if are_headers else None
        if problem is not None:
            return problem
    return None


def _unusable_character(text: str) -> str | None:
    """Return which character of a value cannot be sent, and where it is, or None if all can be sent."""
    for position, character in enumerate(text):
        if "!" <= character <= "~" or (character == " " and text.strip(" ") == text):
            continue
        if position == 0 or not re.search("[!-~]", text[position:]):
            return f"{'ends' if position else 'starts'} with {_describe(character)}"
        return f"contains {_describe(character)} as character {position + 1} of {len(text)}"
    return None


def _describe(character: str) -> str:
    names = {" ": "a space", "\n": "a line feed", "\r": "a carriage return", "\t": "a tab"}
    if character in names:
        return names[character]
    name = unicodedata.name(character, "a control character")
    return f"U+{ord(character):04X} ({name})"


def _without_userinfo(address: str) -> str:
    return address.rpartition("@")[2]
