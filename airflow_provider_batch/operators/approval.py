"""`JobApprovalOperator`: lets a person decide about a job whose cost may exceed an amount."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_provider_batch.core.arguments import (
    check_templated,
    check_value,
    parse_number,
    parse_templated,
    parse_text,
)
from airflow_provider_batch.core.formatting import format_count, format_usd, format_usd_range
from airflow_provider_batch.core.ledger.job import JobKey, Reference
from airflow_provider_batch.core.requests.preview import to_inline_code
from airflow_provider_batch.links.airflow_pages import xcoms_page
from airflow_provider_batch.links.batch import BatchJobLink, job_page
from airflow_provider_batch.worker.airflow_arguments import parse_job, read_reference
from airflow_provider_batch.worker.airflow_errors import airflow_failures
from airflow_provider_batch.worker.checked_arguments import check_arguments
from airflow_provider_batch.worker.mapped_names import NamedByMapping, mapped_name
from airflow_provider_batch.worker.open_job import open_job

if TYPE_CHECKING:
    from airflow.sdk import Context

#: how long to wait for a person, unless the author states a time
DEFAULT_TIMEOUT = timedelta(days=3)
_TEMPLATED: Mapping[str, Callable[[str, Any], Any]] = {"above_usd": parse_number}


class JobApprovalOperator(NamedByMapping, ApprovalOperator):
    """Wait for a person's approval if the high estimate of a job exceeds an amount, or is unknown.

    A job whose requests are all in its canary needs no approval, because nothing is left to pay for.

    The text begins with links to the page of the job and to its first requests. To let only some people decide, pass
    `assigned_users`: Airflow refuses the others, whatever their role. It shows the buttons to everyone.

    :param subject: the question to the person. Default: the DAG, the rows, what the job may cost, and how many requests
        are left.
    :param job: the reference that submit returned.
    :param above_usd: amount in US dollars up to which no approval is necessary.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "job", "above_usd")

    operator_extra_links = (BatchJobLink(),)

    @check_arguments
    def __init__(self, *, job: Any = None, above_usd: float | str = 0, subject: str = "", **kwargs: Any) -> None:
        defaults = {"defaults": ApprovalOperator.REJECT, "response_timeout": DEFAULT_TIMEOUT}
        kwargs = {**defaults, "subject": subject, **kwargs}
        super().__init__(**kwargs)
        self.job = parse_job("job", job)
        self.above_usd: Any = above_usd
        check_templated(self, _TEMPLATED)
        check_value("subject", subject, parse_text)

    def execute(self, context: Context) -> Any:
        """Return immediately if no approval is necessary, otherwise wait for the decision."""
        with airflow_failures(self.log):
            parse_templated(self, _TEMPLATED)
            reference = read_reference("job", self.job)
        if reference.preview:
            raise AirflowSkipException("The job was a preview: there is nothing to approve.")
        highest, limit = reference.estimate.high_usd, self.above_usd or 0
        if not reference.requests:
            self.log.info("No approval is necessary, because the job has no rows.")
            return None
        if reference.canary_requests == reference.sent:
            self.log.info("No approval is necessary, because no requests of the job are left to send.")
            return None
        if highest is not None and highest <= limit:
            self.log.info(
                "No approval is necessary: the job costs at most about %s, and only more than %s needs one.",
                format_usd(highest),
                format_usd(limit),
            )
            return None
        with airflow_failures(self.log):
            submit = open_job(self.job).manifest.key
        BatchJobLink.persist(context, reference.ledger)
        self.subject = self.subject or _question(reference, submit.dag_id, mapped_name(context))
        self.body = "\n\n".join([_links(submit), *self._describe_approvers(), self.body or ""])
        return super().execute(context)

    def _describe_approvers(self) -> list[str]:
        """Return who may decide, because Airflow shows the buttons to everyone."""
        names = [to_inline_code(str(user["name"])) for user in self.assigned_users or ()]
        return [f"Only {' and '.join(names)} can decide."] if names else []


def _question(reference: Reference, dag_id: str, name: str) -> str:
    """Return the question to the person. In a list of requests for approval, it has to tell the jobs apart.

    :param name: name of a mapped job.
    """
    rows, others = (
        format_count(count, noun)
        for count, noun in ((reference.requests, "row"), (reference.sent - reference.canary_requests, "request"))
    )
    estimate = reference.estimate
    cost = format_usd_range(estimate.low_usd, estimate.high_usd, estimate.likely_usd)
    cost = "unknown cost" if cost == "unknown" else cost
    return f"{dag_id}{f' [{name}]' if name else ''}: {rows}, {cost}. Send the other {others}?"


def _links(submit: JobKey) -> str:
    """Return links to the pages that show more than the text, as Markdown."""
    task = submit.dag_id, submit.run_id, submit.task_id, submit.map_index
    return f"[The job]({job_page(*task)}) · [Its first requests in full]({xcoms_page(*task)})"
