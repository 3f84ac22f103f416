"""Options of `airflow-batch serve` for an upstream: another server that answers the requests."""

from __future__ import annotations

import argparse
import os
import re
from urllib.parse import urlsplit

from airflow_provider_batch.local.answers.prompt import ENDPOINTS
from airflow_provider_batch.local.settings import Upstream

#: Environment variable with the upstream's key. A command line would show the key to every user of the computer.
KEY_VARIABLE = "OPENAI_UPSTREAM_API_KEY"
#: default number of concurrent requests to an upstream
CONCURRENCY = 8

#: matches the API version in a path, such as `/v1` or `/v1beta/openai`
_VERSION = re.compile(r"/v\d\w*(/|$)")


def duration(text: str) -> float:
    """Parse a number of seconds greater than 0. The name of this function appears in argparse's error messages."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds greater than 0")
    return value


def add_upstream_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the `--upstream` options to a parser."""
    group = parser.add_argument_group("answers from another server (all times in real seconds)")
    group.add_argument(
        "--upstream",
        metavar="URL",
        help="get answers from this server instead of the offline responder; any server with OpenAI's synchronous API"
        " works (vLLM, Ollama, llama.cpp), for example http://127.0.0.1:8000/v1",
    )
    group.add_argument(
        "--upstream-api-key",
        metavar="KEY",
        help=f"the upstream's API key, if it requires one (default: the environment variable {KEY_VARIABLE})",
    )
    group.add_argument(
        "--upstream-model",
        metavar="NAME",
        help="send every request with this model (default: the model that the request names)",
    )
    group.add_argument(
        "--upstream-timeout",
        type=duration,
        metavar="S",
        help=f"fail a request with request_timeout if its answer takes longer (default {Upstream.timeout:g})",
    )
    group.add_argument(
        "--upstream-patience",
        type=duration,
        metavar="S",
        help="how long batch requests wait for an unreachable upstream before they fail with 503"
        f" (default {Upstream.patience:g})",
    )


def read_upstream(args: argparse.Namespace) -> Upstream | None:
    """Return the upstream that the options describe, or None without `--upstream`.

    :raises ValueError: the URL is invalid, or other upstream options are given without `--upstream`.
    """
    options = {
        name: value
        for name in ("model", "timeout", "patience", "api_key")
        if (value := getattr(args, f"upstream_{name}")) is not None
    }
    if args.upstream is None:
        if options:
            raise ValueError(f"--upstream-{next(iter(options)).replace('_', '-')} requires --upstream URL.")
        return None
    return Upstream(url=normalize_base_url(args.upstream), **{"api_key": os.environ.get(KEY_VARIABLE), **options})


def normalize_base_url(url: str) -> str:
    """Return the base URL for a URL as people paste it: without `/v1`, with a trailing slash or an endpoint's path.

    :raises ValueError: the URL is incomplete, or has a user, a password, a query or a fragment. The message never
        contains the URL, which may include a password.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("--upstream needs a complete URL, for example http://127.0.0.1:8000/v1.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "The URL of --upstream must not contain a user, a password, `?` or `#`. Pass the upstream's key with"
            f" --upstream-api-key or in the environment variable {KEY_VARIABLE}."
        )
    path = parts.path.rstrip("/")
    for endpoint in ENDPOINTS:
        path = path.removesuffix(endpoint.removeprefix("/v1"))
    if not _VERSION.search(path):
        path += "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"
