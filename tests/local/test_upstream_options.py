"""The options of `serve` about an upstream: what people paste, and what makes no sense."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from airflow_provider_batch.local.upstream_options import normalize_base_url
from tests.local.test_command import run


@pytest.mark.parametrize(
    ("pasted", "meant"),
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
def test_a_base_url_is_taken_as_people_paste_it(pasted: str, meant: str) -> None:
    assert normalize_base_url(pasted) == meant
    assert normalize_base_url(meant) == meant


@pytest.mark.parametrize("pasted", ["localhost:8000", "127.0.0.1:8000/v1", "ftp://example.com", "http://", "vllm"])
def test_what_is_no_url_is_refused_with_an_example(pasted: str) -> None:
    with pytest.raises(ValueError, match="for example http://"):
        normalize_base_url(pasted)


@pytest.mark.parametrize("pasted", ["https://user:secret@example.com", "https://example.com/v1?key=secret"])
def test_a_url_with_a_secret_is_refused_and_not_repeated(pasted: str) -> None:
    with pytest.raises(ValueError, match="--upstream-api-key") as caught:
        normalize_base_url(pasted)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", ["--upstream-model=m", "--upstream-api-key=k", "--upstream-timeout=1"])
def test_an_option_that_nothing_would_read_is_refused(
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
def test_times_that_make_no_sense_are_refused(seconds: str) -> None:
    with pytest.raises(SystemExit):
        run("--upstream", "http://127.0.0.1:1", "--upstream-timeout", seconds)
