"""The page of a job: what it shows, and the HTML of it.

What a model answered may turn up in failure messages, so nothing here is trusted: Jinja escapes every value, and the
Content-Security-Policy lets the browser load and run nothing but the style below.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib import resources

import jinja2
import msgspec

#: longer lists are cut, and say so
MAX_SHARDS = 500
MAX_FAILURES = 50


class ShardView(msgspec.Struct, frozen=True, kw_only=True):
    """One input file and the batch that the provider made of it."""

    name: str
    model: str
    requests: int
    #: how often the provider is asked for these rows, this time included
    attempt: int
    #: the provider's status, or the step that comes before there is one
    status: str
    batch_id: str | None = None


class FailureView(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that ended alike."""

    outcome: str
    code: str | None
    message: str | None
    count: int


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows of a job. None is unknown."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    job_uid: str
    #: absolute address of the job's folder
    ledger: str
    endpoint: str
    #: rows; of these as many are asked as there are neither `same` nor `known`
    requests: int
    #: rows whose request is asked once for another row too
    same: int = 0
    #: rows that an earlier job was answered, and the table that holds those answers; '' if none was looked at
    known: int = 0
    reuse_from: str = ""
    sealed_at: datetime
    deadline: datetime | None = None
    settled_at: datetime | None = None
    #: outcome -> number of requests, from the best to the worst
    outcomes: dict[str, int] = {}
    shards: list[ShardView] = []
    #: the most frequent first
    failures: list[FailureView] = []
    #: US dollars
    estimate_low_usd: float | None = None
    estimate_high_usd: float | None = None
    cost_usd: float | None = None
    #: what the same would have cost without batch
    standard_cost_usd: float | None = None
    #: requests of the attempts after the first, as far as they landed, and what those cost
    asked_again: int = 0
    asked_again_cost_usd: float | None = None


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_style = _asset("page.css")
_style_hash = base64.b64encode(hashlib.sha256(_style.encode()).digest()).decode()

#: sent with every page
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_style_hash}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _usd(value: float | None) -> str:
    return "unknown" if value is None else f"${value:,.4f}" if value < 1 else f"${value:,.2f}"


def _time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M:%S %Z}"


_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_environment.filters.update(usd=_usd, time=_time, number=lambda value: f"{value:,}")
_template = _environment.from_string(_asset("page.html"))


def render(view: JobView) -> str:
    """The whole page of a job, as HTML."""
    return _template.render(view=view, message=None, style=_style, shards=MAX_SHARDS, failures=MAX_FAILURES)


def render_message(message: str) -> str:
    """A page that only says something, as HTML."""
    return _template.render(view=None, message=message, style=_style, shards=MAX_SHARDS, failures=MAX_FAILURES)
