"""The limits of an input file: of the provider, of the connection, and of the argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import run_job


@pytest.fixture
def limits_at(connect: Callable[..., None]) -> Callable[..., Limits]:
    """Return a function for the limits at a base URL: `limits_at("https://…", extra={…}, overrides={…})`."""

    def limits(base_url: str | None, *, extra: dict[str, Any] | None = None, overrides: Any = None) -> Limits:
        connect("llm", conn_type="openai", password="k", host=base_url, extra=extra or {})
        return BatchHook(conn_id="llm").limits(overrides)

    return limits


@pytest.mark.parametrize(
    ("base_url", "limits"),
    [
        (None, Limits()),
        ("https://api.groq.com/openai/v1", Limits()),
        ("https://res.openai.azure.com/openai/v1/", Limits(requests=100_000)),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", Limits(bytes=500_000_000)),
        ("https://api.tokenfactory.nebius.com/v1/", Limits(requests=5_000_000, bytes=10_000_000_000)),
        ("http://127.0.0.1:8000/v1", Limits()),
    ],
)
def test_the_base_url_of_the_connection_determines_the_limits(
    limits_at: Callable[..., Limits], base_url: str | None, limits: Limits
) -> None:
    assert limits_at(base_url) == limits


def test_a_base_url_in_the_client_arguments_is_respected(limits_at: Callable[..., Limits]) -> None:
    extra = {"openai_client_kwargs": {"base_url": "https://res.openai.azure.com/openai/v1/"}}
    assert limits_at(None, extra=extra).requests == 100_000


def test_the_argument_overrides_the_connection_which_overrides_the_provider(
    limits_at: Callable[..., Limits],
) -> None:
    extra = {"batch_limits": {"requests": 90_000, "tokens": 1_000_000}}
    limits = limits_at("https://res.openai.azure.com/openai/v1/", extra=extra, overrides={"tokens": 500})
    assert limits == Limits(requests=90_000, bytes=200_000_000, tokens=500)


@pytest.mark.parametrize("batch_limits", [{"rows": 5}, {"requests": 0}, [5], "5"])
def test_the_error_for_invalid_limits_in_a_connection_names_the_connection(
    limits_at: Callable[..., Limits], batch_limits: object
) -> None:
    with pytest.raises(InputError, match="openai_conn_id: batch_limits in the extra of connection 'llm'"):
        limits_at(None, extra={"batch_limits": batch_limits})


# Through the operators


@pytest.fixture
def two_requests_a_file(warehouse: Path, connect: Callable[..., None], batch_server: LocalServer) -> None:
    """Limit the input files of the connection to two requests."""
    extra = {"batch_limits": {"requests": 2}}
    connect("openai_default", conn_type="openai", password="local", host=batch_server.base_url, extra=extra)


def limit_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "An input file for" in line]


@pytest.mark.usefixtures("two_requests_a_file")
@pytest.mark.parametrize(("limits", "shards"), [({}, 3), ({"requests": 4}, 2), ({"requests": 5}, 1)])
def test_a_job_is_split_at_the_limits_of_its_connection_and_argument(limits: dict[str, int], shards: int) -> None:
    result = run_job(limits=limits)
    assert result.state == "success"
    assert result.return_values["submit"]["shards"] == shards
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.usefixtures("two_requests_a_file")
def test_a_token_limit_splits_a_job_into_files_that_fit_the_queue() -> None:
    total = run_job(limits={"requests": 5}).return_values["submit"]["estimate"]["input_tokens"]
    assert run_job(limits={"requests": 5, "tokens": total - 1}).return_values["submit"]["shards"] == 2


@pytest.mark.usefixtures("two_requests_a_file")
@pytest.mark.parametrize(("spare", "shards"), [(-1, 2), (0, 1), (1, 1)])
def test_a_byte_limit_below_the_size_of_the_rows_adds_a_file(tmp_path: Path, spare: int, shards: int) -> None:
    """The files contain exactly the lines of the rows, so their sizes add up to the total."""
    run_job(limits={"requests": 5})
    total = sum(path.stat().st_size for path in (tmp_path / "staging").rglob("s0001.jsonl"))
    result = run_job(limits={"requests": 5, "bytes": total + spare})
    assert result.return_values["submit"]["shards"] == shards
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.usefixtures("two_requests_a_file")
def test_a_row_larger_than_a_file_is_reported_before_anything_is_uploaded() -> None:
    error = run_job(limits={"bytes": 100}).error()
    assert "Row 1 (custom_id 'T-1')" in error
    assert "Nothing was uploaded." in error


@pytest.mark.usefixtures("two_requests_a_file")
@pytest.mark.parametrize(("inputs", "shards"), [(9, 2), (10, 1), (11, 1)])
def test_the_input_limit_counts_embedding_inputs_across_the_rows_of_a_file(inputs: int, shards: int) -> None:
    result = run_job(
        endpoint="/v1/embeddings",
        model="text-embedding-3-small",
        prompt=...,
        body={"input": ["{{ row.title }}", "{{ row.body }}"], "dimensions": 8},
        limits={"requests": 5, "inputs": inputs},
    )
    assert result.return_values["submit"]["shards"] == shards
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.usefixtures("two_requests_a_file")
def test_limits_other_than_those_of_openai_are_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    run_job()
    (line,) = limit_lines(capsys)
    assert "An input file for 127.0.0.1 may hold at most 2 requests, 200,000,000 bytes" in line


@pytest.mark.usefixtures("two_requests_a_file")
def test_the_limits_of_openai_are_not_logged(
    capsys: pytest.CaptureFixture[str], connect: Callable[..., None], batch_server: LocalServer
) -> None:
    connect("openai_default", conn_type="openai", password="local", host=batch_server.base_url)
    run_job()
    assert limit_lines(capsys) == []


@pytest.mark.usefixtures("two_requests_a_file")
def test_a_row_over_the_token_or_answer_limit_is_reported_before_anything_is_uploaded() -> None:
    error = run_job(limits={"tokens": 3}).error()
    assert "Row 1 (custom_id 'T-1') has about" in error
    assert "an input file may have at most 3. Nothing was uploaded." in error
    error = run_job(limits={"output_bytes": 10_000}, max_output_tokens=8_000).error()
    assert "Row 1 (custom_id 'T-1') would get an answer of about 33,000 bytes" in error
    assert "Nothing was uploaded." in error
