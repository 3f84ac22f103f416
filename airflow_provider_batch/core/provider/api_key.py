"""Checks of an API key, before it is sent. Their sentences never show the key."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_batch.core.provider.header_text import is_quoted, unusable_character

#: field of the form of a connection, as errors name it
KEY_FIELD = "the API key (field API Key)"
#: text that stands for a key in documentation and templates
_PLACEHOLDER = re.compile(
    r"<.*>|\{.*\}|\[.*\]|\$.*|%.*%|.*\.\.\.|.*…|.*\*{3,}.*|[•·*]+|x{3,}|sk-([\w-]+-)?x{4,}"
    r"|change-?_?me|placeholder|todo|null|undefined|redacted|masked"
    r"|(.*[-_ ])?(your|insert|paste|replace|enter)[-_ ].*|(openai_)?api_?key",
    re.IGNORECASE,
)
_NOT_KEYS = (
    (r"\s*(authorization:\s*)?bearer\b", 'starts with "Bearer". Enter the key alone'),
    (r"\s*(authorization:\s*)?basic\s", 'starts with "Basic". Enter the key alone'),
    (
        r"\s*(export\s+)?\w*(key|token|secret)\w*\s*=\s*[^=\s]",
        "starts with a name and an equals sign. Enter the key alone",
    ),
    (r"\s*[\w-]*(key|authorization)\s*:\s", "starts with the name of a header. Enter the key alone"),
    (r'\s*[{\[].*"', "is JSON. Enter the key alone"),
    (r"\s*\w+://", "is an address, not a key"),
    (
        r"\s*((vault|aws|gcp|azure|kv|ssm|secrets?|keyvault|env):|arn:|projects/[^/]+/secrets/|@microsoft\.keyvault)",
        "is a reference to a secret, which nothing resolves here. Enter the key, or use a secrets backend of Airflow",
    ),
    (
        r"\s*(~/|\.{1,2}/|/(run|etc|var|home|root|mnt|opt|usr|tmp|secrets?|users)/)",
        "is the path of a file. Enter the key itself",
    ),
    (r"\s*org-[A-Za-z0-9]+\s*\Z", "is the id of an organization, not a key"),
    (r"\s*proj_[A-Za-z0-9]+\s*\Z", "is the id of a project, not a key"),
)
#: the beginnings of keys that OpenAI's API does not accept
_FOREIGN_PREFIXES = {
    "sk-ant-": "a key of Anthropic",
    "sk-or-": "a key of OpenRouter",
    "gsk_": "a key of Groq",
    "AIza": "a key of Google",
    "xai-": "a key of xAI",
    "hf_": "a token of Hugging Face",
    "AKIA": "a key of AWS",
}


def api_key_problem(key: Any, field: str = KEY_FIELD) -> str | None:
    """Return what is wrong with an API key, without showing it, or None if nothing is.

    :param key: None if the key comes from elsewhere.
    """
    if key is None:
        return None
    if not isinstance(key, str):
        return f"{field} must be text"
    if not key.strip():
        return f"{field} is empty"
    for pattern, problem in _NOT_KEYS:
        if re.match(pattern, key, re.IGNORECASE | re.DOTALL):
            return f"{field} {problem}"
    if _PLACEHOLDER.fullmatch(key.strip()):
        return f"{field} is a placeholder, not a key"
    character = unusable_character(key)
    if character is not None:
        return f"{field} {character}. Copy the key once more"
    if is_quoted(key):
        return f"{field} is between quotes. Enter the key alone"
    if " " in key:
        return f"{field} contains a space"
    if ",sk-" in key:
        return f"{field} contains a comma and a second key. Enter one key"
    if key[-1] in ",;":
        return f"{field} ends with {'a comma' if key[-1] == ',' else 'a semicolon'}. Enter the key alone"
    return None


def openai_key_problem(key: str, field: str = KEY_FIELD) -> str | None:
    """Return why OpenAI's own API cannot accept a key, without showing it, or None if it can."""
    for prefix, owner in _FOREIGN_PREFIXES.items():
        if key.startswith(prefix):
            return (
                f"{field} is {owner}, but the address is OpenAI's. Enter a key of OpenAI, or the other address in Host"
            )
    if key.startswith("sk-admin-"):
        return f"{field} is an admin key, which cannot use the Batch API. Enter a key of a project"
    return None


def is_key(text: str) -> bool:
    """Return whether a text of another field looks like an API key, and must not be shown."""
    prefixes = "|".join(re.escape(prefix) for prefix in ("sk-", *_FOREIGN_PREFIXES))
    return re.match(rf"\s*({prefixes})[\w-]{{8,}}", text) is not None
