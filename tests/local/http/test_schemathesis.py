"""Calls made up from OpenAI's own description of the API: valid ones, and ones with a mistake in them.

Whatever comes in, the server answers with a status, a content type and a body that the description names, refuses
what the description forbids, takes what it allows, and never breaks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from airflow_provider_batch.local.answers.prompt import ENDPOINTS
from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import make_client
from tests.local.driving import chat, chats, run
from tests.local.schemas import DOCUMENT

#: calls per operation and kind (valid, with a mistake), beside those that schemathesis lays out itself
EXAMPLES = 15
#: sequences of calls, and the calls of each
SEQUENCES, STEPS = 30, 8


def described() -> dict[str, Any]:
    """The description with what it says in prose alone, and with what this server says of itself."""
    document = copy.deepcopy(DOCUMENT)
    schemas, paths = document["components"]["schemas"], document["paths"]
    for path, most in (("/batches", 100), ("/files", 10_000)):
        (limit,) = (one["schema"] for one in paths[path]["get"]["parameters"] if one["name"] == "limit")
        limit |= {"minimum": 1, "maximum": most}
    asked = schemas["CreateBatchRequest"]["properties"]
    asked["endpoint"]["enum"] = list(ENDPOINTS)
    # Null is no policy, as it is no metadata.
    asked["output_expires_after"] = {"anyOf": [asked["output_expires_after"], {"type": "null"}]}
    # The other ids that lead from call to call are found by their names.
    batch = {"operationId": "createBatch", "requestBody": {"input_file_id": "$response.body#/id"}}
    for path, call in (("/files", "post"), ("/files/{file_id}", "get")):
        paths[path][call]["responses"]["200"]["links"] = {"Batch": {**batch, "x-schemathesis": {"merge_body": True}}}
    return document


CONFIG = SchemathesisConfig.from_dict(
    {
        # A parameter that the description does not name is passed over, as any HTTP server does.
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "allow-extra-parameters": False},
        # What a file for batches has to look like, and how large it may be, is said in prose alone.
        "operations": [
            {"include-path-regex": "^/(files|uploads)", "checks": {"positive_data_acceptance": {"enabled": False}}}
        ],
    }
)
SCHEMA = schemathesis.openapi.from_dict(described(), config=CONFIG)
KEY = {"Authorization": "Bearer local"}


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with room for any number of calls, and with files and a batch to begin with."""
    state = tmp_path_factory.mktemp("state")
    with LocalServer(state, creates_per_hour=0, uploads_per_minute=0) as running, make_client(running) as client:
        run(client, [*chats(3), chat("bad", "[[fail:500]]")])
        yield running


@SCHEMA.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_every_call_is_answered_as_the_description_says(case: schemathesis.Case[Any], driven: LocalServer) -> None:
    case.call_and_validate(driven.base_url, headers=KEY)


def test_calls_that_follow_from_each_other_are_answered_as_the_description_says(tmp_path: Path) -> None:
    # Hypothesis wants the same calls to find the same: so no lists, which hold what other sequences left behind,
    # and no batch that gets any further while it is looked at.
    schema = SCHEMA.exclude(method="GET", path=["/files", "/batches"])
    long = 3600.0
    with LocalServer(tmp_path, creates_per_hour=0, uploads_per_minute=0, validating=long, finalizing=long) as running:

        class Following(schema.as_state_machine()):  # type: ignore[misc]  # a class made at run time
            """Takes ids from one answer into the next call: upload, create, retrieve, cancel, download, delete."""

            def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
                return {"base_url": running.base_url, "headers": KEY}

        how = settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        Following.run(settings=how)
