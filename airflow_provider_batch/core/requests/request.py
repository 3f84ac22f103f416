"""A request, its line in an input file, and its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.requests.value import canonical_json, canonical_json_of_all


class Problem(NamedTuple):
    """Why a row cannot be sent, although its neighbours can."""

    code: str
    #: a full sentence for a person
    message: str


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request. The endpoint is not part of it, since all requests of a job share it."""

    custom_id: str
    model: str
    #: canonical JSON in UTF-8, without a line end
    body: bytes
    #: number of inputs that count against the limit of a batch; more than 1 only for embeddings
    inputs: int
    #: outline that measures the request without parsing the body; None if there is none
    outline: Outline | None = None
    #: values that the row inserted into the body, for the outline
    leaf_values: Sequence[Any] = ()
    #: addresses of the files in the body
    files: tuple[str, ...] = ()
    #: why the row cannot be sent; its body then only identifies it
    problem: Problem | None = None


def request_lines(custom_ids: Sequence[str], endpoint: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Return requests as lines of a batch input file, including the line ends."""
    before_body = _before_body(endpoint)
    lines = [
        b'{"custom_id":%b%b%b}\n' % (custom_id, before_body, body)
        for custom_id, body in zip(canonical_json_of_all(custom_ids), bodies, strict=True)
    ]
    return [line if line.isascii() else escape_line_separators(line) for line in lines]


def escape_line_separators(line: bytes) -> bytes:
    r"""Return a line of an input file with U+2028, U+2029 and U+0085 written as \u escapes.

    They are legal in JSON, but a server that splits the file at every Unicode line end would lose the request. JSON
    escapes all other characters at which such a server splits, because they are control characters. The request hash
    is computed from the body without these escapes, so it does not depend on them.
    """
    for first_byte, last_byte, character, escape in _LINE_SEPARATORS:
        # looking for a single byte is many times faster than looking for the character
        if first_byte in line and last_byte in line:
            line = line.replace(character, escape)
    return line


#: first and last byte in UTF-8, all bytes, and the JSON escape
_LINE_SEPARATORS = tuple(
    (encoded[0], encoded[-1], encoded, b"\\u%04x" % ord(character))
    for character in "\x85\u2028\u2029"
    for encoded in [character.encode()]
)


@cache
def _before_body(endpoint: str) -> bytes:
    return b',"method":"POST","url":%b,"body":' % canonical_json(endpoint)


def request_hashes(endpoint: str, bodies: Iterable[bytes]) -> list[str]:
    """Return the request hashes in hexadecimal. They cover the endpoint and the body, but not the custom_id."""
    hash_before_body = _hash_before_body(endpoint)
    hashes = []
    for body in bodies:
        digest = hash_before_body.copy()
        digest.update(body)
        hashes.append(digest.hexdigest())
    return hashes


@cache
def _hash_before_body(endpoint: str) -> hashlib._Hash:
    return hashlib.sha256(endpoint.encode() + b"\n")
