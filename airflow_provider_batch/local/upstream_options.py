"""The options of `airflow-batch serve` that let an upstream answer."""

from __future__ import annotations

import argparse
import os
import re
from urllib.parse import urlsplit

from airflow_provider_batch.local.answers.prompt import ENDPOINTS
from airflow_provider_batch.local.settings import Upstream

#: the environment variable with the upstream's key, which a command line would show to every user of the computer
KEY_VARIABLE = "OPENAI_UPSTREAM_API_KEY"
#: requests in flight at once, unless the command line says how many
CONCURRENCY = 8

#: how a path names the version of an API, as in `/v1` or `/v1beta/openai`
_VERSION = re.compile(r"/v\d\w*(/|$)")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return value


def add_upstream_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("answers from an upstream, in real seconds")
    group.add_argument(
        "--upstream",
        metavar="URL",
        help="let this server answer, not the offline responder: any with OpenAI's synchronous API (vLLM, Ollama,"
        " llama.cpp), for instance http://127.0.0.1:8000/v1",
    )
    group.add_argument(
        "--upstream-api-key",
        metavar="KEY",
        help=f"the upstream's key, if it asks for one (default: the environment variable {KEY_VARIABLE})",
    )
    group.add_argument(
        "--upstream-model",
        metavar="NAME",
        help="ask the upstream for this model, whichever a request names (default: the one it names)",
    )
    group.add_argument(
        "--upstream-timeout",
        type=_seconds,
        metavar="S",
        help=f"after so long without an answer a request ends with request_timeout (default {Upstream.timeout:g})",
    )
    group.add_argument(
        "--upstream-patience",
        type=_seconds,
        metavar="S",
        help="while the upstream cannot be reached, requests of batches wait for it so long before they fail with"
        f" 503 (default {Upstream.patience:g})",
    )


def upstream_of(args: argparse.Namespace) -> Upstream | None:
    """The upstream that the options name, if any.

    :raises ValueError: they make no sense.
    """
    given = {
        name: value
        for name in ("model", "timeout", "patience", "api_key")
        if (value := getattr(args, f"upstream_{name}")) is not None
    }
    if args.upstream is None:
        if given:
            raise ValueError(f"--upstream-{next(iter(given)).replace('_', '-')} says nothing without --upstream URL")
        return None
    return Upstream(url=base_url(args.upstream), **{"api_key": os.environ.get(KEY_VARIABLE), **given})


def base_url(pasted: str) -> str:
    """The base URL that people mean: with or without `/v1`, a slash at the end, or an endpoint's path.

    :raises ValueError: it is none. Never repeats a password.
    """
    parts = urlsplit(pasted.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("--upstream needs a whole URL, for instance http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "--upstream takes a URL without user, password, `?` and `#`. The upstream's key is given with"
            f" --upstream-api-key or as {KEY_VARIABLE}."
        )
    path = parts.path.rstrip("/")
    for endpoint in ENDPOINTS:
        path = path.removesuffix(endpoint.removeprefix("/v1"))
    if not _VERSION.search(path):
        path += "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"
