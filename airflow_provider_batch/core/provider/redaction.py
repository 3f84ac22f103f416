"""Redaction of secrets in what a provider sends.

Some providers echo the key ("Incorrect API key provided: sk-..."). Whatever they send is stored and shown: in the
results table, the ledger, the log and the page. So the secrets that a client sends are replaced in every answer, before
anything reads it:

    {"error": {"message": "Incorrect API key provided: sk-abc123"}}
    {"error": {"message": "Incorrect API key provided: *********"}}

A replacement is as long as the secret. So an answer keeps its length, which is compared with what the provider says of
a file, and JSON remains JSON. Secrets that are encoded (in URLs, in base64, with the escapes of JSON) are replaced too.

Values that are too common to be secrets are left alone, because they may occur in the answers of a model: see
`is_secret`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote_plus

import msgspec

#: minimum length of a secret, in characters
MIN_LENGTH = 8
#: minimum length of a secret that consists of letters only
MIN_LETTERS = 16

#: names of headers and query parameters whose values are secrets
_SECRET_NAME = re.compile(
    r"auth|key|token|secret|passw|pwd|cookie|credential|signature|session|jwt|bearer", re.IGNORECASE
)
_SEPARATORS = re.compile(r"[\s,;]+")


def is_secret(value: str) -> bool:
    """Return whether a value is replaced: not if it is short, or a single word, such as the placeholder `anything`."""
    return len(value) >= MIN_LENGTH and (len(value) >= MIN_LETTERS or not value.isalpha())


def find_secrets(fields: Iterable[tuple[str, str]]) -> set[str]:
    """Return the secrets in headers or query parameters, given as names and values.

    For `Authorization: Basic dXNlcjpwYXNz`, these are the encoded credentials, and the pair and the password in them.
    For a cookie, they are its values.
    """
    secrets: set[str] = set()
    for name, value in fields:
        if not _SECRET_NAME.search(name):
            continue
        scheme, _, credentials = value.strip().partition(" ")
        text = credentials if scheme.isalpha() and credentials else value.strip()
        parts = [text, *_SEPARATORS.split(text)]
        parts += [part.partition("=")[2].strip('"') for part in parts]
        parts += [credential for part in parts for credential in _decode_credentials(part)]
        secrets.update(part for part in parts if is_secret(part))
    return secrets


def _decode_credentials(text: str) -> list[str]:
    """Return `user:password` and the password of an encoded pair, as in basic authentication."""
    try:
        pair = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    return [pair, pair.partition(":")[2]] if ":" in pair else []


class Redactor:
    """Replaces secrets. Further secrets can be added at any time."""

    def __init__(self) -> None:
        self.secrets: frozenset[str] = frozenset()
        #: the secrets in all their encodings, longest first, because one can be a part of another
        self._patterns: tuple[bytes, ...] = ()

    def add(self, secrets: Iterable[str]) -> None:
        """Replace these secrets, too, from now on."""
        if self.secrets.issuperset(secrets := frozenset(secrets)):
            return
        secrets |= self.secrets
        patterns = {pattern for secret in secrets for pattern in _encodings(secret)}
        self._patterns = tuple(sorted(patterns, key=lambda pattern: (-len(pattern), pattern)))
        # Last, because another thread that finds its secrets here needs the patterns.
        self.secrets = secrets

    @property
    def longest(self) -> int:
        """Length of the longest text that is replaced, in bytes; 0 if there is none."""
        return len(self._patterns[0]) if self._patterns else 0

    def redact(self, data: bytes) -> bytes:
        """Return the data with every secret replaced."""
        for pattern in self._patterns:
            if pattern in data:
                data = data.replace(pattern, b"*" * len(pattern))
        return data


class RedactedStream:
    """Redacts data that arrives in chunks. A secret may begin in one chunk and end in the next."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor, self._tail = redactor, b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the redacted data so far, without the last bytes, which may be the beginning of a secret."""
        data = self._redactor.redact(self._tail + chunk)
        end = max(len(data) - max(self._redactor.longest - 1, 0), 0)
        self._tail = data[end:]
        return data[:end]

    def end(self) -> bytes:
        """Return the last bytes."""
        return self._tail


def _encodings(secret: str) -> set[bytes]:
    """Return the texts in which a secret can appear: as it is, percent-encoded, in base64, and escaped in JSON."""
    urls = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    urls |= {re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), url) for url in urls}
    base64_texts = {
        encode(secret.encode()).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)
    }
    return {text.encode() for text in {secret, unquote_plus(secret), *urls, *base64_texts, *_json_texts(secret)}}


def _json_texts(text: str) -> set[str]:
    """Return a text as different encoders write it in JSON: some escape slashes, others what is special in HTML."""
    plain_texts = {msgspec.json.encode(text).decode()[1:-1], json.dumps(text)[1:-1]}
    texts = plain_texts | {plain.replace("/", "\\/") for plain in plain_texts}
    for characters in ("<>&", "<>&='", "<>&='+/"):
        for escape in ("\\u{:04x}", "\\u{:04X}"):
            escapes = str.maketrans({character: escape.format(ord(character)) for character in characters})
            texts |= {plain.translate(escapes) for plain in plain_texts}
    return texts
