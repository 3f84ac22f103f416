"""Mistakes in a connection are named with their field, before a client is built, and no secret is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batch.core.provider.connection import ConnectionFields, connection_problems, connection_warnings

KEY = "sk-proj-0123456789abcdefABCDEF"
ARGUMENTS = ("api_key", "base_url", "organization", "project", "timeout", "max_retries", "default_headers")
FIELDS = ConnectionFields("openai", None, None, None, None, KEY, None, {})


def problems(extra: Any, **fields: Any) -> list[str]:
    fields = {"extra_text": json.dumps(extra), **fields}
    return connection_problems(FIELDS._replace(extra=extra, **fields), known_arguments=ARGUMENTS, environment={})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"organization": "org-1\n"}, "'organization' in openai_client_kwargs ends with a line feed"),
        ({"organization": "“org-1”"}, "starts with U+201C"),
        ({"organization": ""}, "is empty"),
        ({"organization": 5}, "must be text, not int"),
        ({"organization": "proj_1"}, "'organization' in openai_client_kwargs is the id of a project"),
        ({"organization": "My Company"}, "Enter the id, not the name"),
        ({"project": "org-1"}, "'project' in openai_client_kwargs is the id of an organization"),
        ({"project": "proj_1 "}, "ends with a space"),
        ({"timeout": "60"}, "'timeout' in openai_client_kwargs must be a number of seconds"),
        ({"timeout": 0}, "must be a number of seconds greater than 0"),
        ({"timeout": {"connect": 5}}, "must be a number of seconds"),
        ({"max_retries": "2"}, "must be a whole number of at least 0"),
        ({"max_retries": -1}, "must be a whole number of at least 0"),
        ({"max_retries": True}, "must be a whole number of at least 0"),
        ({"default_headers": ["x"]}, "must be an object, not list"),
        (
            {"default_headers": {"X-Team": "Zürich"}},
            "'default_headers' in openai_client_kwargs has the header 'X-Team', which contains U+00FC",
        ),
        ({"default_headers": {"X-Team": 5}}, "must be text, not int"),
        ({"default_headers": {"X Team": "a"}}, "'X Team', which is not a valid name"),
        ({"timout": 60}, "'timout' in openai_client_kwargs is unknown. Did you mean 'timeout'?"),
        ({"azure_endpoint": "x"}, "'azure_endpoint' in openai_client_kwargs is unknown"),
    ],
)
def test_an_argument_of_the_client_that_cannot_be_right_is_named(arguments: dict[str, Any], problem: str) -> None:
    assert problem in "".join(problems({"openai_client_kwargs": arguments}))


def test_the_usual_arguments_of_the_client_are_accepted() -> None:
    arguments = {
        "organization": "org-1",
        "project": "proj_1",
        "timeout": 20.5,
        "max_retries": 0,
        "default_headers": {"X-Team": "a b"},
    }

    assert problems({"openai_client_kwargs": arguments}) == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"openai_client_kwarg": {}}, "Did you mean 'openai_client_kwargs'?"),
        ({"batch_limit": {}}, "Did you mean 'batch_limits'?"),
        ({"batch_price": {}}, "Did you mean 'batch_prices'?"),
        ({"organization": "org-1"}, 'Move it into the object "openai_client_kwargs"'),
        ({"base_url": "x"}, 'Move it into the object "openai_client_kwargs"'),
        ({"openai_client_kwargs": "x"}, "must be an object"),
        ([1], "must be a JSON object"),
    ],
)
def test_a_key_of_the_extra_that_has_no_effect_is_named(extra: Any, problem: str) -> None:
    assert problem in "".join(problems(extra))


@pytest.mark.parametrize("extra", [{}, {"openai_client_kwargs": None}, {"batch_limits": {}}, {"team": "data"}])
def test_other_extras_are_accepted(extra: dict[str, Any]) -> None:
    assert problems(extra) == []


def test_an_extra_that_is_not_json_is_named() -> None:
    assert problems({}, extra_text="{'a': 1}") == ["the extra must be a JSON object"]


@pytest.mark.parametrize(
    ("host", "port", "schema", "address"),
    [
        ("http://localhost", 8000, "v1", "http://localhost:8000/v1"),
        ("https://gateway.example/", None, "/v1", "https://gateway.example/v1"),
        ("gateway.example", 8443, "v1", "https://gateway.example:8443/v1"),
    ],
)
def test_fields_that_have_no_effect_are_named(host: str, port: int | None, schema: str | None, address: str) -> None:
    assert (
        f"Write the whole address into the field Host: {address}"
        in problems({}, host=host, port=port, schema=schema)[0]
    )


def test_fields_that_repeat_the_address_are_accepted() -> None:
    assert problems({}, host="http://localhost:8000/v1", port=8000, schema="v1") == []
    assert problems({}, host=None, port=None, schema="") == []


def test_an_odd_but_usable_connection_causes_warnings() -> None:
    fields = FIELDS._replace(conn_type="http", host="http://gateway.example/v1", login="me", extra={"team": "data"})

    warnings = connection_warnings(fields, environment={})
    assert len(warnings) == 4
    assert "unencrypted" in warnings[0]
    assert connection_problems(fields, known_arguments=ARGUMENTS, environment={}) == []
    assert connection_warnings(FIELDS, environment={}) == []
