"""Which limits an input file is kept within: the provider's, the connection's, the argument's."""

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
    """The limits at a base URL: `limits_at("https://…", extra={…}, overrides={…})`."""

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
def test_the_connections_base_url_tells_the_provider_and_so_its_limits(
    limits_at: Callable[..., Limits], base_url: str | None, limits: Limits
) -> None:
    assert limits_at(base_url) == limits


def test_a_base_url_among_the_client_arguments_counts_as_well(limits_at: Callable[..., Limits]) -> None:
    extra = {"openai_client_kwargs": {"base_url": "https://res.openai.azure.com/openai/v1/"}}
    assert limits_at(None, extra=extra).requests == 100_000


def test_the_connection_comes_before_the_provider_and_the_argument_before_both(
    limits_at: Callable[..., Limits],
) -> None:
    extra = {"batch_limits": {"requests": 90_000, "tokens": 1_000_000}}
    limits = limits_at("https://res.openai.azure.com/openai/v1/", extra=extra, overrides={"tokens": 500})
    assert limits == Limits(requests=90_000, bytes=200_000_000, tokens=500)


@pytest.mark.parametrize("stated", [{"rows": 5}, {"requests": 0}, [5], "5"])
def test_limits_in_a_connection_that_are_none_are_refused_with_its_name(
    limits_at: Callable[..., Limits], stated: object
) -> None:
    with pytest.raises(InputError, match="openai_conn_id: batch_limits in the extra of connection 'llm'"):
        limits_at(None, extra={"batch_limits": stated})


# Through the operators


@pytest.fixture
def two_requests_a_file(warehouse: Path, connect: Callable[..., None], batch_server: LocalServer) -> None:
    """A connection that allows two requests in an input file."""
    extra = {"batch_limits": {"requests": 2}}
    connect("openai_default", conn_type="openai", password="local", host=batch_server.base_url, extra=extra)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if "An input file for" in line]


@pytest.mark.usefixtures("two_requests_a_file")
@pytest.mark.parametrize(("limits", "shards"), [({}, 3), ({"requests": 4}, 2), ({"requests": 5}, 1)])
def test_a_job_is_cut_into_files_within_the_limits_of_its_connection_and_argument(
    limits: dict[str, int], shards: int
) -> None:
    ran = run_job(limits=limits)
    assert ran.state == "success"
    assert ran.returned["submit"]["shards"] == shards
    assert ran.returned["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.usefixtures("two_requests_a_file")
def test_a_limit_of_tokens_cuts_a_job_into_files_that_fit_a_queue() -> None:
    whole = run_job(limits={"requests": 5}).returned["submit"]["estimate"]["input_tokens"]
    assert run_job(limits={"requests": 5, "tokens": whole - 1}).returned["submit"]["shards"] == 2


@pytest.mark.usefixtures("two_requests_a_file")
@pytest.mark.parametrize(("spare", "shards"), [(-1, 2), (0, 1), (1, 1)])
def test_a_byte_less_than_the_rows_take_is_one_file_more(tmp_path: Path, spare: int, shards: int) -> None:
    """What is cut is what arrives: the sum of the files' sizes is that of the rows' lines."""
    run_job(limits={"requests": 5})
    whole = sum(path.stat().st_size for path in (tmp_path / "staging").rglob("s0001.jsonl"))
    ran = run_job(limits={"requests": 5, "bytes": whole + spare})
    assert ran.returned["submit"]["shards"] == shards
    assert ran.returned["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.usefixtures("two_requests_a_file")
def test_a_row_larger_than_a_file_is_named_before_anything_is_uploaded() -> None:
    error = run_job(limits={"bytes": 100}).error()
    assert "Row 1 (custom_id 'T-1')" in error
    assert "Nothing was uploaded." in error


@pytest.mark.usefixtures("two_requests_a_file")
@pytest.mark.parametrize(("inputs", "shards"), [(9, 2), (10, 1), (11, 1)])
def test_embedding_inputs_over_all_rows_of_a_file_are_counted(inputs: int, shards: int) -> None:
    ran = run_job(
        endpoint="/v1/embeddings",
        model="text-embedding-3-small",
        prompt=...,
        body={"input": ["{{ row.title }}", "{{ row.body }}"], "dimensions": 8},
        limits={"requests": 5, "inputs": inputs},
    )
    assert ran.returned["submit"]["shards"] == shards
    assert ran.returned["land"]["outcomes"] == {"succeeded": 5}


@pytest.mark.usefixtures("two_requests_a_file")
def test_limits_that_are_not_openais_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    run_job()
    (line,) = said(capsys)
    assert "An input file for 127.0.0.1 may hold 2 requests, 200,000,000 bytes" in line


@pytest.mark.usefixtures("two_requests_a_file")
def test_openais_limits_go_without_saying(
    capsys: pytest.CaptureFixture[str], connect: Callable[..., None], batch_server: LocalServer
) -> None:
    connect("openai_default", conn_type="openai", password="local", host=batch_server.base_url)
    run_job()
    assert said(capsys) == []


@pytest.mark.usefixtures("two_requests_a_file")
def test_a_row_over_the_limit_of_tokens_or_of_answers_is_named_before_anything_is_uploaded() -> None:
    error = run_job(limits={"tokens": 3}).error()
    assert "Row 1 (custom_id 'T-1') is about" in error
    assert "an input file takes 3. Nothing was uploaded." in error
    error = run_job(limits={"output_bytes": 10_000}, max_output_tokens=8_000).error()
    assert "Row 1 (custom_id 'T-1') expects an answer of about 33,000 bytes" in error
    assert "Nothing was uploaded." in error
