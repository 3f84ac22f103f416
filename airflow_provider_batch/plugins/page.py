"""Renders the page of a job as HTML.

Failure messages may contain text from a model, so no value is trusted. Jinja escapes all of them, and the
Content-Security-Policy allows the browser to load and run nothing except the style sheet of the page.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib import resources

import jinja2
import jinja2.runtime

from airflow_provider_batch.core.formatting import format_time, format_usd, format_usd_range
from airflow_provider_batch.core.lifecycle.summary import JobSummary

#: maximum lengths of the lists; the page says how many entries are left out
MAX_SHARDS = 500
MAX_FAILURES = 50


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_style = _asset("page.css")
_style_hash = base64.b64encode(hashlib.sha256(_style.encode()).digest()).decode()

#: HTTP headers of every page
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_style_hash}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@jinja2.pass_context
def _format_time(context: jinja2.runtime.Context, time: datetime | None) -> str:
    return "–" if time is None else format_time(time, context["now"])


_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
_environment.filters.update(usd=format_usd, time=_format_time, number=lambda count: f"{count:,}")
_environment.globals["usd_range"] = format_usd_range
_template = _environment.from_string(_asset("page.html"))


def render(job: JobSummary, task_id: str, map_index: int, now: datetime) -> str:
    """Return the page of a job as HTML.

    :param task_id: the task that the page was opened from, which may be any task of the job.
    :param map_index: map index of that task; -1 if it is not mapped.
    :param now: the current time, from which the page computes ages such as "3 h ago".
    """
    return _template.render(
        job=job,
        task_id=task_id,
        map_index=map_index,
        message=None,
        now=now,
        style=_style,
        shards=MAX_SHARDS,
        failures=MAX_FAILURES,
    )


def render_message(message: str) -> str:
    """Return an HTML page that contains only a message."""
    return _template.render(job=None, message=message, style=_style, shards=MAX_SHARDS, failures=MAX_FAILURES)
