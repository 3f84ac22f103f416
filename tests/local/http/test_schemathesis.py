"""Calls generated from OpenAI's API description, both valid ones and ones with mistakes.

The server must respond to every call with a status, a content type and a body that the description lists. It must
reject what the description forbids, accept what it allows, and never fail with an internal error.
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

#: Generated calls per operation and kind (valid, with a mistake), in addition to schemathesis's fixed examples.
EXAMPLES = 15
#: Number of sequences, and of calls per sequence.
SEQUENCES, STEPS = 30, 8


def completed_document() -> dict[str, Any]:
    """Return the API description with the constraints that it only states in prose, and with those of this server."""
    document = copy.deepcopy(DOCUMENT)
    schemas, paths = document["components"]["schemas"], document["paths"]
    for path, maximum in (("/batches", 100), ("/files", 10_000)):
        (limit,) = (item["schema"] for item in paths[path]["get"]["parameters"] if item["name"] == "limit")
        limit |= {"minimum": 1, "maximum": maximum}
    properties = schemas["CreateBatchRequest"]["properties"]
    properties["endpoint"]["enum"] = list(ENDPOINTS)
    # The server accepts null as "no policy", as it does for metadata.
    properties["output_expires_after"] = {"anyOf": [properties["output_expires_after"], {"type": "null"}]}
    # schemathesis finds the other ids that link calls by their names.
    batch = {"operationId": "createBatch", "requestBody": {"input_file_id": "$response.body#/id"}}
    for path, call in (("/files", "post"), ("/files/{file_id}", "get")):
        paths[path][call]["responses"]["200"]["links"] = {"Batch": {**batch, "x-schemathesis": {"merge_body": True}}}
    return document


CONFIG = SchemathesisConfig.from_dict(
    {
        # The server ignores query parameters that the description does not list, as any HTTP server does.
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "allow-extra-parameters": False},
        # The description states the format and size limit of batch input files only in prose.
        "operations": [
            {"include-path-regex": "^/(files|uploads)", "checks": {"positive_data_acceptance": {"enabled": False}}}
        ],
    }
)
SCHEMA = schemathesis.openapi.from_dict(completed_document(), config=CONFIG)
KEY = {"Authorization": "Bearer local"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server without rate limits that already has files and a batch."""
    state = tmp_path_factory.mktemp("state")
    with LocalServer(state, creates_per_hour=0, uploads_per_minute=0) as server, make_client(server) as client:
        run(client, [*chats(3), chat("bad", "[[fail:500]]")])
        yield server


@SCHEMA.parametrize()
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_every_response_matches_the_api_description(case: schemathesis.Case[Any], server: LocalServer) -> None:
    case.call_and_validate(server.base_url, headers=KEY)


def test_responses_in_sequences_of_calls_match_the_api_description(tmp_path: Path) -> None:
    # Hypothesis needs the same calls to have the same results. Lists are excluded because they contain objects of
    # earlier sequences, and batches must not change their status during a sequence.
    schema = SCHEMA.exclude(method="GET", path=["/files", "/batches"])
    long = 3600.0
    with LocalServer(tmp_path, creates_per_hour=0, uploads_per_minute=0, validating=long, finalizing=long) as server:

        class Sequence(schema.as_state_machine()):  # type: ignore[misc]  # a class made at run time
            """Uses ids from one response in the next call: upload, create, retrieve, cancel, download, delete."""

            def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
                return {"base_url": server.base_url, "headers": KEY}

        options = settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        Sequence.run(settings=options)
