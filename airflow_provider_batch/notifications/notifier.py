"""`BatchJobNotifier`: makes any notifier of Airflow say how a job ended."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.notifications.message import STATES, JobMessage, compose

if TYPE_CHECKING:
    from airflow_provider_batch.core.lifecycle.summary import JobSummary

#: fields of notifiers, with what they get if the author does not set them
_DEFAULT_TEMPLATES: Mapping[str, str] = {
    "subject": "{{ batch_job.subject }}",
    "html_content": "{{ batch_job.html }}",
    "text": "{{ batch_job.text }}",
    "message": "{{ batch_job.text }}",
    "content": "{{ batch_job.text }}",
}
_SLACK_TEXT = "{{ batch_job.slack }}"


class BatchJobNotifier(BaseNotifier):
    """Tell people how a job ended: its outcomes, its cost, why it failed, and a link to its page.

    It passes the message to another notifier, such as `SlackNotifier` or `SmtpNotifier`. In the templates of that
    notifier, `batch_job` is the message: `{{ batch_job.text }}` (plain text), `.subject` (one line), `.html`, `.slack`
    (escaped for Slack), `.state`, `.cost`, `.outcomes`, `.error` and `.url`. The fields `subject`, `html_content`,
    `text`, `message` and `content` get the matching text unless they are set. A function gets the message as
    `context["batch_job"]`.

    `batch_job(notify=…)` attaches a notifier to its tasks. Attach it to operators of your own as
    `on_failure_callback` of all three tasks, and as `on_success_callback` of the landing:

        notify = BatchJobNotifier(SlackNotifier(slack_conn_id="slack", channel="#batch"))
        land = BatchResultsOperator(..., on_success_callback=notify, on_failure_callback=notify)

    Airflow runs these callbacks after the task has ended, so a notification that cannot be sent is logged and does not
    fail the task. With retries, only the last failure is notified.

    :param notifier: a notifier of Airflow, or a function that takes the context.
    :param states: when to notify: "finished", "withheld" (the task succeeded, but a budget did not cover all rows) and
        "failed". Default: all of them.
    :raises InputError: while the DAG is parsed, if an argument is wrong.
    """

    def __init__(
        self,
        notifier: Callable[[Any], Any],
        *,
        states: Iterable[str] = STATES,
        **unknown: Any,
    ) -> None:
        if unknown:
            names = ", ".join(map(repr, unknown))
            raise InputError(f"BatchJobNotifier has no argument {names}. Its arguments are notifier and states.")
        super().__init__()
        self.states = _check_states(states)
        if isinstance(notifier, type) or not callable(notifier):
            raise InputError(
                f"BatchJobNotifier: notifier must be a notifier such as SmtpNotifier(to='me@example.com'), or a "
                f"function that takes the context, not {notifier!r}."
            )
        self.notifier = _with_default_templates(notifier)

    def notify(self, context: Any) -> None:
        """Read the job of the task and send the message."""
        message = self._message(context)
        if message.state not in self.states:
            return
        # Rendering changes the fields of a notifier, which may be called again in the same process.
        copy.copy(self.notifier)({**context, "batch_job": message})

    def _message(self, context: Any) -> JobMessage:
        # Parsing a DAG does not need these modules.
        from airflow.providers.common.compat.sdk import conf, redact

        from airflow_provider_batch.links.batch import job_page

        ti, reason = context.get("ti"), context.get("reason")
        base_url = conf.get("api", "base_url", fallback="http://localhost:8080")
        if reason is not None or ti is None:  # a callback of the DAG, which knows no job
            dag_id, run_id = context["dag"].dag_id, context["run_id"]
            page = urljoin(f"{base_url.rstrip('/')}/", f"dags/{dag_id}/runs/{quote(run_id)}")
            failed = reason != "success"
            return compose(dag_id, run_id, page, None, str(reason or "") if failed else "", failed=failed)
        job, problem = self._job(ti)
        failed = ti.state not in ("success", "skipped")
        error = "\n".join(filter(None, (_describe_error(context) if failed else "", problem)))
        map_label = getattr(ti, "rendered_map_index", None) or (ti.map_index if ti.map_index >= 0 else None)
        task = f"{ti.dag_id}.{ti.task_id}" + ("" if map_label is None else f" [{map_label}]")
        page = urljoin(base_url, job_page(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)) if job else ti.log_url
        return compose(task, ti.run_id, page, job, str(redact(error)), failed=failed)

    def _job(self, ti: Any) -> tuple[JobSummary | None, str | None]:
        """Return the job of a task, or why it cannot be read. Without a job, both are None."""
        from airflow_provider_batch.core.ledger.ledger import open_ledger
        from airflow_provider_batch.core.lifecycle.summary import summarize
        from airflow_provider_batch.links.batch import LEDGER_KEY
        from airflow_provider_batch.staging.layout import open_folder

        try:
            address = ti.xcom_pull(key=LEDGER_KEY)
            ledger = open_ledger(open_folder(address)) if address else None
            return (summarize(ledger), None) if ledger else (None, None)
        except Exception as error:  # The end of the task is reported in any case.
            self.log.warning("Cannot read the job for its notification.", exc_info=True)
            return None, f"The job cannot be read ({type(error).__name__})."


def _check_states(states: Iterable[str]) -> frozenset[str]:
    chosen = {states} if isinstance(states, str) else set(states)
    if not chosen or chosen - set(STATES):
        raise InputError(
            f"BatchJobNotifier: states must be some of {', '.join(STATES)}, not {', '.join(sorted(chosen)) or 'none'}."
        )
    return frozenset(chosen)


def _with_default_templates(notifier: Any) -> Any:
    """Return the notifier with our templates in the fields that have the default of its class."""
    if not isinstance(notifier, BaseNotifier):
        return notifier
    notifier = copy.copy(notifier)
    parameters = inspect.signature(type(notifier)).parameters
    for name in set(_DEFAULT_TEMPLATES).intersection(notifier.template_fields, parameters):
        if getattr(notifier, name) == parameters[name].default:
            is_slack = name == "text" and "slack" in type(notifier).__module__
            setattr(notifier, name, _SLACK_TEXT if is_slack else _DEFAULT_TEMPLATES[name])
    return notifier


def _describe_error(context: Mapping[str, Any]) -> str:
    error = context.get("exception")
    if error is None:  # Airflow passes errors to callbacks from 3.3 on, and has none if the worker was killed
        return "See the log of the task. If it does not say why, the worker was probably killed."
    if isinstance(error, BaseException) and type(error).__name__ != "AirflowFailException":
        return f"{type(error).__name__}: {error}"
    return str(error)
