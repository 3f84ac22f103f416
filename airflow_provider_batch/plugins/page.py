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

from airflow_provider_batch.core.lifecycle.summary import JobSummary

#: longer lists are cut, and say so
MAX_SHARDS = 500
MAX_FAILURES = 50


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


def _usd(value: str | float | None) -> str:
    if value is None:
        return "unknown"
    amount = float(value)
    return f"${amount:,.4f}" if amount < 1 else f"${amount:,.2f}"


def _time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M:%S %Z}"


_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_environment.filters.update(usd=_usd, time=_time, number=lambda value: f"{value:,}")
_template = _environment.from_string(_asset("page.html"))


def render(job: JobSummary, task_id: str, map_index: int) -> str:
    """Return the whole page of a job, as HTML.

    :param task_id: the task instance that the page was opened from: any task of the job.
    :param map_index: its map index; -1 if it is not mapped.
    """
    return _template.render(
        job=job,
        task_id=task_id,
        map_index=map_index,
        message=None,
        style=_style,
        shards=MAX_SHARDS,
        failures=MAX_FAILURES,
    )


def render_message(message: str) -> str:
    """A page that only says something, as HTML."""
    return _template.render(job=None, message=message, style=_style, shards=MAX_SHARDS, failures=MAX_FAILURES)
