"""An API key that cannot be right is named before it is sent, and never shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.api_key import api_key_problem, is_key, openai_key_problem

KEY = "sk-proj-0123456789abcdefABCDEF"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (f"{KEY}\n", "ends with a line feed"),
        (f"{KEY}\r\n", "ends with a carriage return"),
        (f"{KEY} ", "ends with a space"),
        (f"\t{KEY}", "starts with a tab"),
        (f" {KEY}", "starts with a space"),
        (f"“{KEY}”", "starts with U+201C (LEFT DOUBLE QUOTATION MARK)"),
        (f"{KEY}’", "ends with U+2019 (RIGHT SINGLE QUOTATION MARK)"),
        (f"{KEY}\u200b", "ends with U+200B (ZERO WIDTH SPACE)"),
        (f"\ufeff{KEY}", "starts with U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        (f"{KEY}\u00a0", "ends with U+00A0 (NO-BREAK SPACE)"),
        ("sk-proj–0123456789", "contains U+2013 (EN DASH) as character 8 of 18"),
        ("sk-pröj-0123456789", "contains U+00F6"),
        ("sk-proj-01\x0023456789", "contains U+0000 (a control character)"),
        ("sk-proj-01 23456789", "contains a space"),
        (f'"{KEY}"', "is between quotes"),
        (f"'{KEY}'", "is between quotes"),
        (f"Bearer {KEY}", 'starts with "Bearer"'),
        (f"bearer {KEY}\n", 'starts with "Bearer"'),
        (f"Authorization: Bearer {KEY}", 'starts with "Bearer"'),
        ("", "is empty"),
        ("  \n", "is empty"),
        ("YOUR_API_KEY", "is a placeholder"),
        ("sk-your-key-here", "is a placeholder"),
        ("<your-key>", "is a placeholder"),
        ("sk-...", "is a placeholder"),
        ("sk-xxxxxxxx", "is a placeholder"),
        ("••••••••", "is a placeholder"),
        (f"OPENAI_API_KEY={KEY}", "starts with a name and an equals sign"),
        ("/run/secrets/0123456789", "is the path of a file"),
        ("vault:secret/0123456789", "is a reference to a secret"),
        ("org-0123456789abc", "is the id of an organization"),
        ("********", "is a placeholder"),
        ("changeme", "is a placeholder"),
        ("$OPENAI_API_KEY", "is a placeholder"),
        ("${OPENAI_API_KEY}", "is a placeholder"),
        ("{{var.value.key}}", "is a placeholder"),
        ("OPENAI_API_KEY", "is a placeholder"),
        (5, "must be text"),
    ],
)
def test_a_key_that_cannot_be_right_is_named(key: Any, problem: str) -> None:
    message = api_key_problem(key)

    assert message is not None
    assert message.startswith("the API key (field API Key) ")
    assert problem in message
    assert str(key).strip() == "" or "0123456789" not in message


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        None,
        "local",
        "EMPTY",
        "dummy",
        "none",
        "ollama",
        "password",
        "gsk_x",
        "a.b-c_d~e+f/g==",
        "bXlrZXk1key12345==",
        "k" * 400,
    ],
)
def test_other_keys_are_accepted(key: str | None) -> None:
    assert api_key_problem(key) is None


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=20), st.integers(0, 19), st.characters())
def test_a_key_is_accepted_only_if_a_header_can_hold_it_and_is_never_shown(key: str, at: int, character: str) -> None:
    changed = key[:at] + character + key[at:]
    message = api_key_problem(changed)

    if message is None:
        assert changed == changed.strip()
        changed.encode("ascii")
    else:
        assert key not in message


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (f"sk-ant-{'a' * 40}", "is a key of Anthropic"),
        (f"sk-admin-{'a' * 40}", "is an admin key"),
    ],
)
def test_a_key_that_openai_cannot_accept_is_named(key: str, problem: str) -> None:
    assert problem in str(openai_key_problem(key))
    assert api_key_problem(key) is None


def test_other_keys_may_be_of_openai() -> None:
    assert openai_key_problem(KEY) is None


def test_text_that_looks_like_a_key_is_recognized() -> None:
    assert is_key(KEY)
    assert is_key(f"gsk_{'a' * 40}")
    assert not is_key("https://sk-proj.example")
    assert not is_key("sk-host")
