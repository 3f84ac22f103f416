"""The secrets of a connection in the answers of a provider."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.redaction import RedactedStream, Redactor, find_secrets

KEY = "sk-proj-Ab3_dEf9/gH+1jK="

#: what a header can carry, and is not a single word
secret_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=60).filter(
    lambda text: not text.isalpha() and len(set(text)) > 3 and "*" not in text
)


def redactor_of(*secrets: str) -> Redactor:
    redactor = Redactor()
    redactor.add(secrets)
    return redactor


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("Authorization", f"Bearer {KEY}", {KEY}),
        ("authorization", KEY, {KEY}),
        ("api-key", KEY, {KEY}),
        ("X-Gateway-Token", f" {KEY} ", {KEY}),
        ("Ocp-Apim-Subscription-Key", KEY, {KEY}),
        ("Cookie", "session=0123456789; theme=dark", {"0123456789"}),
        (
            "Authorization",
            "Basic " + base64.b64encode(b"user:pass-word-1").decode(),
            {"user:pass-word-1", "pass-word-1"},
        ),
        ("X-Team", "billing-department-7", set()),
        ("User-Agent", "OpenAI/Python 3.52.0", set()),
        ("api_key", "short-1", set()),
        ("api_key", "placeholder", set()),
        ("api_key", "averylongpassphrase", {"averylongpassphrase"}),
    ],
)
def test_secrets_are_recognized_by_the_name_of_their_header(name: str, value: str, secrets: set[str]) -> None:
    assert secrets <= find_secrets([(name, value)])
    assert bool(secrets) == bool(find_secrets([(name, value)]))


@given(secret_values, st.text(), st.text())
def test_a_secret_is_replaced_wherever_it_is_and_nothing_changes_its_length(
    secret: str, before: str, after: str
) -> None:
    text = (before + secret + after).encode("utf-8", "replace")
    redacted = redactor_of(secret).redact(text)
    assert len(redacted) == len(text)
    assert secret.encode() not in redacted


@given(secret_values, st.dictionaries(st.text(), st.text() | st.integers()))
def test_json_remains_json(secret: str, content: dict[str, object]) -> None:
    redacted = redactor_of(secret).redact(json.dumps({**content, "message": f"key: {secret}."}).encode())
    assert json.loads(redacted).keys() == {**content, "message": ""}.keys()
    assert secret not in json.loads(redacted)["message"]


@given(st.binary(), secret_values)
def test_other_data_is_unchanged(data: bytes, secret: str) -> None:
    # no encoding of a secret is shorter than the secret
    if len(data) < len(secret):
        assert redactor_of(secret).redact(data) == data


@given(secret_values, st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_a_stream_is_redacted_like_the_whole(secret: str, parts: list[bytes], data: st.DataObject) -> None:
    whole = secret.encode().join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    chunks = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    redactor = redactor_of(secret)
    stream = RedactedStream(redactor)
    assert b"".join([*map(stream.feed, chunks), stream.end()]) == redactor.redact(whole)


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        quote(KEY, safe=""),
        quote(KEY),
        KEY.replace("/", "%2f").replace("+", "%2b").replace("=", "%3d"),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        KEY.replace("/", "\\/"),
        KEY.replace("=", "\\u003d"),
        KEY.replace("=", "\\u003D"),
        KEY.replace("=", "\\u003d").replace("+", "\\u002b").replace("/", "\\u002f"),
    ],
)
def test_an_encoded_secret_is_replaced(echo: str) -> None:
    # the padding of base64 says nothing
    assert redactor_of(KEY).redact(echo.encode()).strip(b"*=") == b""


def test_a_secret_that_begins_like_another_is_replaced_completely() -> None:
    assert redactor_of("abcdefgh1", "abcdefgh1-and-more").redact(b"abcdefgh1-and-more") == b"*" * 18


def test_secrets_can_be_added_later() -> None:
    redactor = redactor_of("first-secret")
    redactor.add(["second-secret"])
    assert redactor.redact(b"first-secret second-secret") == b"*" * 12 + b" " + b"*" * 13
