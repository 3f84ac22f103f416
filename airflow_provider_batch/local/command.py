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

from airflow_provider_batch.local.dialects import DIALECTS, build_dialect
from airflow_provider_batch.local.faults import Fault, FaultsError, read_faults
from airflow_provider_batch.local.http.app import create_app
from airflow_provider_batch.local.http.call_faults import Protocol
from airflow_provider_batch.local.settings import CREATES_PER_HOUR, UPLOADS_PER_MINUTE, WINDOW, Settings, Upstream
from airflow_provider_batch.local.storage.store import ADDRESS_FILE, StateInUseError
from airflow_provider_batch.local.upstream_options import CONCURRENCY, add_upstream_arguments, upstream_of

DESCRIPTION = (
    "The Files and Batches endpoints of the OpenAI API on loopback, for development, tests and the demo. "
    "No production engine: an offline responder makes the answers up and says so in their model name, unless "
    "--upstream names a server that answers."
)
#: what answers without an upstream
_OFFLINE = "an offline responder makes the answers up; no model is asked."
#: how long the offline responder, which needs no time, takes for a batch
_IN_PROGRESS = 20.0


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def _limit(text: str) -> int | None:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value or None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _dialect(text: str) -> str:
    try:
        build_dialect([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8321, help="0 picks a free one (default %(default)s)")
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".batch-server"),
        metavar="DIR",
        help="directory for files and batches; a server started again on it goes on (default %(default)s)",
    )
    _add_time_arguments(parser)
    add_upstream_arguments(parser)
    _add_limit_arguments(parser)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="order of the lines in result files, and whom faults hit"
    )
    _add_test_arguments(parser)


def _add_time_arguments(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group("time between the states of a batch, in seconds of the server's clock")
    times.add_argument("--validating", type=_seconds, default=2.0, metavar="S", help="default %(default)s")
    times.add_argument(
        "--in-progress",
        type=_seconds,
        metavar="S",
        help=f"spread over the requests of a batch (default {_IN_PROGRESS:g}, with --upstream 0)",
    )
    times.add_argument(
        "--finalizing",
        type=_seconds,
        default=3.0,
        metavar="S",
        help="also the time a cancel takes (default %(default)s)",
    )
    times.add_argument(
        "--speed",
        type=_positive,
        default=1.0,
        metavar="FACTOR",
        help="run the server's clock so much faster: states, window, expiry of files, limits (default %(default)s)",
    )
    times.add_argument(
        "--window",
        type=int,
        default=WINDOW,
        metavar="S",
        help="the completion window after which a batch expires (default %(default)s, 24 hours)",
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits and access")
    limits.add_argument(
        "--model",
        action="append",
        default=[],
        dest="models",
        metavar="NAME",
        help="a model the server knows, may be repeated; without it every name is accepted",
    )
    limits.add_argument(
        "--concurrency",
        type=_count,
        metavar="N",
        help="requests of one batch that are asked at the same time, and of an upstream over all batches and calls"
        f" (default 1, with --upstream {CONCURRENCY})",
    )
    _add_quota_arguments(limits)
    limits.add_argument(
        "--api-key",
        metavar="KEY",
        help="accept this key only; needed to listen beyond loopback (default: any non-empty key)",
    )


def _add_quota_arguments(limits: argparse._ArgumentGroup) -> None:
    limits.add_argument(
        "--enqueued-token-limit",
        type=int,
        metavar="N",
        help="input tokens per model that may wait; a batch beyond it fails with token_limit_exceeded",
    )
    limits.add_argument(
        "--release-after",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="how long the tokens of an ended batch still count as waiting (default %(default)s)",
    )
    limits.add_argument(
        "--creates-per-hour",
        type=_limit,
        default=CREATES_PER_HOUR,
        metavar="N",
        help="batches that may be created in an hour, 0 for no limit (default %(default)s)",
    )
    limits.add_argument(
        "--uploads-per-minute",
        type=_limit,
        default=UPLOADS_PER_MINUTE,
        metavar="N",
        help="files that may be uploaded in a minute, 0 for no limit (default %(default)s)",
    )


def _add_test_arguments(parser: argparse.ArgumentParser) -> None:
    tests = parser.add_argument_group("for tests of what uses the server")
    tests.add_argument(
        "--admin", action="store_true", help="routes under /admin that set faults and move the clock (default: none)"
    )
    tests.add_argument(
        "--faults", type=Path, metavar="FILE", help="a JSON list of what goes wrong on request (default: nothing)"
    )
    tests.add_argument(
        "--webhook-duplicates",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="the share of webhooks that arrive twice, drawn by the seed (default %(default)s)",
    )
    tests.add_argument(
        "--dialect",
        type=_dialect,
        action="append",
        default=[],
        dest="dialects",
        metavar="NAME",
        help=f"differ from OpenAI as another provider does ({', '.join(sorted(set(DIALECTS) - {'openai'}))}), or in one"
        " habit of theirs; may be repeated (default: openai)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; the process's exit code."""
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
        raise OSError(f"cannot read the faults in {path}: {error.strerror}") from error
    except FaultsError as error:
        raise ValueError(f"the faults in {path} are wrong: {error}") from error


class _Uvicorn(uvicorn.Server):
    """Says that it ends before it waits for its connections to end, as one may be silent for long."""

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
            f"{host} is not loopback, so anyone who reaches it could use this server."
            " Give it a key with --api-key, or listen on 127.0.0.1."
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}. Is another server there?") from error
    return listener


def _serve(args: argparse.Namespace, faults: tuple[Fault, ...], listener: socket.socket) -> int:
    upstream = upstream_of(args)
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
        models=frozenset(args.models),
        enqueued_token_limit=args.enqueued_token_limit,
        release_after=args.release_after,
        creates_per_hour=args.creates_per_hour,
        uploads_per_minute=args.uploads_per_minute,
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
        raise ValueError(f"--upstream {upstream.url} is this server itself")
    # Uvicorn raises the signal that stopped it once more; by then everything is closed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    address = state / ADDRESS_FILE
    _publish(address, base_url)
    answers = asyncio.run(_answers(upstream)) if upstream else _OFFLINE
    print(_greeting(base_url, state, answers, settings), flush=True)
    config = uvicorn.Config(
        app,
        http=Protocol if settings.calls_may_fail else "auto",
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
    """Written beside and renamed, so that a reader sees all of it or nothing."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"pid": os.getpid(), "base_url": base_url}), encoding="utf-8")
    new.replace(path)


async def _answers(upstream: Upstream) -> str:
    # As in `app`: without an upstream the server starts without the SDK.
    from airflow_provider_batch.local.answers.upstream import UpstreamResponder

    async with UpstreamResponder(upstream, 1) as responder:
        return await responder.describe()


def _greeting(base_url: str, state: Path, answers: str, settings: Settings) -> str:
    password = "YOUR_KEY" if settings.api_key else "local"
    connection = json.dumps({"conn_type": "openai", "password": password, "host": base_url}, separators=(",", ":"))
    return "\n".join(
        (
            f"Local batch server at {base_url}",
            f"State in {state}",
            f"No production engine: {answers}",
            *_warnings(base_url, settings),
            "An Airflow connection to it:",
            f"  export AIRFLOW_CONN_OPENAI_DEFAULT='{connection}'",
            "Ctrl-C ends it; started again on the same state it goes on.",
        )
    )


def _warnings(base_url: str, settings: Settings) -> Iterator[str]:
    if settings.dialect.switches:
        yield f"It differs from OpenAI as --dialect asks: {', '.join(sorted(settings.dialect.switches))}."
    if settings.faults:
        kinds = ", ".join(sorted({fault.kind for fault in settings.faults}))
        yield f"Faults are on: calls, batches and answers fail as --faults asks ({kinds})."
    if settings.admin:
        root = base_url.removesuffix("/v1")
        yield f"Admin routes are on: {root}/admin lets whoever has a key set faults and move the clock."
