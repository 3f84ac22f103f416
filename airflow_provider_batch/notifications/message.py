"""What a notification says about a job. It holds no row data and no keys."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_batch.core.formatting import format_count, format_usd, format_usd_range

if TYPE_CHECKING:
    from airflow_provider_batch.core.lifecycle.summary import JobSummary

#: how a job can end
FINISHED, WITHHELD, FAILED = "finished", "withheld", "failed"
STATES = (FINISHED, WITHHELD, FAILED)
#: maximum number of characters of an error
MAX_ERROR_CHARACTERS = 1_500


class JobMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a notification says about a job. Templates reach it as `batch_job`."""

    #: "finished", "withheld" (it succeeded, but a budget did not cover all rows) or "failed"
    state: str
    #: one line without untrusted text
    subject: str
    #: plain text with several lines
    text: str
    #: address of the page of the job, or of the task if there is no job
    url: str
    #: number of rows by outcome; empty before a job exists
    outcomes: dict[str, int]
    #: what the job cost, as text for people: "$0.12", or "unknown"
    cost: str
    #: why the task failed, or why its job cannot be read; otherwise empty
    error: str

    @property
    def html(self) -> str:
        """The text as HTML, for mails. Nothing in it is interpreted as markup."""
        lines = html.escape(self.text).replace("\n", "<br>\n")
        link = html.escape(self.url)
        return f'<p>{lines}</p>\n<p><a href="{link}">{link}</a></p>'

    @property
    def slack(self) -> str:
        """The text with Slack's control characters escaped, so that an error cannot mention `<!channel>`."""
        return self.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def compose(task: str, run_id: str, url: str, job: JobSummary | None, error: str, *, failed: bool) -> JobMessage:
    """Return the message about the end of a task.

    :param task: DAG and task, as people know them, such as "label_tickets.land [DE]".
    :param job: the job of the task, or None if it has none (yet).
    :param error: why the task failed, or why its job cannot be read; may be empty.
    """
    outcomes = job.outcomes if job else {}
    withheld = outcomes.get("withheld", 0)
    state = FAILED if failed else WITHHELD if withheld else FINISHED
    error = _printable(error)[:MAX_ERROR_CHARACTERS]
    lines = [_headline(task, state, job), f"Run: {_printable(run_id)}"]
    if job:
        lines += _describe_job(job)
    if error:
        lines.append(f"Error: {error}")
    if job and state != FINISHED:
        lines.append(f"Next: {job.next}")
    return JobMessage(
        state=state,
        subject=_headline(task, state, job).rstrip("."),
        text="\n".join([*lines, url]),
        url=url,
        outcomes=outcomes,
        cost=format_usd(job.cost_usd if job else None),
        error=error,
    )


def _headline(task: str, state: str, job: JobSummary | None) -> str:
    rows = format_count(job.requests, "row") if job else ""
    match state:
        case "failed":
            return f"{task} failed."
        case "withheld" if job:
            return (
                f"{task}: {job.outcomes['withheld']:,} of {rows} were not sent, because a budget does not cover them."
            )
        case _ if job:
            cost = f", {format_usd(job.cost_usd)}" if job.landed else ""
            return f"{task}: {job.outcomes.get('succeeded', 0):,} of {rows} succeeded{cost}."
        case _:
            return f"{task} succeeded."


def _describe_job(job: JobSummary) -> list[str]:
    estimate = format_usd_range(job.estimate.low_usd, job.estimate.high_usd)
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in job.outcomes.items())
    lines = [f"Rows: {job.requests:,}" + (f" ({outcomes})" if outcomes else "")]
    cost = format_usd(job.cost_usd) if job.landed else "not known yet"
    lines.append(f"Cost: {cost} (estimate: {estimate})")
    if job.landed and job.landed.location:
        lines.append(f"Landed in: {_printable(job.landed.location)}")
    return lines


def _printable(text: Any) -> str:
    return "".join(character if character.isprintable() or character == "\n" else " " for character in str(text))
