"""The `--upstream` options of `serve`: URLs as people paste them, and invalid values."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from airflow_provider_batch.local.upstream_options import normalize_base_url
from tests.local.test_command import run


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        (" http://127.0.0.1:8000/v1/ ", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:11434/v1", "http://[::1]:11434/v1"),
        ("http://127.0.0.1:8000/v1/chat/completions", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/embeddings/", "http://127.0.0.1:8000/v1"),
        ("https://example.com/api/v1", "https://example.com/api/v1"),
        ("https://example.com/v1beta/openai/", "https://example.com/v1beta/openai"),
        ("https://example.com/models/vegan", "https://example.com/models/vegan/v1"),
    ],
)
def test_a_pasted_url_is_normalized(url: str, expected: str) -> None:
    assert normalize_base_url(url) == expected
    assert normalize_base_url(expected) == expected


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1:8000/v1", "ftp://example.com", "http://", "vllm"])
def test_an_incomplete_url_is_rejected_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match="for example http://"):
        normalize_base_url(url)


@pytest.mark.parametrize("url", ["https://user:secret@example.com", "https://example.com/v1?key=secret"])
def test_a_url_with_a_secret_is_rejected_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="--upstream-api-key") as error_info:
        normalize_base_url(url)
    assert "secret" not in str(error_info.value)


@pytest.mark.parametrize("option", ["--upstream-model=m", "--upstream-api-key=k", "--upstream-timeout=1"])
def test_an_upstream_option_without_upstream_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert run("--port", "0", "--state", str(tmp_path), option) == 2
    assert f"{option.partition('=')[0]} requires --upstream URL" in capsys.readouterr().err


def test_a_server_is_not_its_own_upstream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])

    assert run("--port", port, "--state", str(tmp_path), "--upstream", f"http://localhost:{port}") == 2
    assert "this server itself" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_invalid_times_are_rejected(seconds: str) -> None:
    with pytest.raises(SystemExit):
        run("--upstream", "http://127.0.0.1:1", "--upstream-timeout", seconds)
