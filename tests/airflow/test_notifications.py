"""What a notification says when a job ends: by mail, over HTTP, and with a function of the author."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.notifications import BatchJobNotifier
from tests.airflow.jobs import make_tickets, run_dag
from tests.airflow.test_ceiling import DEAR
from tests.airflow.test_ceiling import JOB as JOB_THAT_EXCEEDS_ITS_CEILING
from tests.airflow.test_task_groups import ARGUMENTS, new_dag

KEY = "sk-very-secret-0123456789"
#: whether Airflow tells the callbacks of a task why it failed
PASSES_ERRORS = tuple(map(int, version("apache-airflow-core").split(".")[:2])) >= (3, 3)


@pytest.fixture
def _warehouse(tmp_path: Path, connect: Callable[..., None], offline: None) -> None:
    path = tmp_path / "warehouse.sqlite"
    make_tickets(path, [(f"t{n}", f"title {n}", f"body {n}", "x") for n in range(3)])
    connect("warehouse", conn_type="sqlite", host=str(path))


@pytest.fixture
def messages() -> list[Any]:
    return []


@pytest.fixture
def record(messages: list[Any]) -> Callable[[Any], None]:
    """A notifier that is a function: it keeps the messages."""
    return lambda context: messages.append(context["batch_job"])


@pytest.mark.usefixtures("_warehouse")
def test_a_mail_says_what_landed_and_what_it_cost(mails: list[Any]) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job(**ARGUMENTS, notify=SmtpNotifier(to="team@example.com"))

    assert run_dag(dag).state == "success"

    (mail,) = mails
    assert mail["Subject"].startswith(f"{dag.dag_id}.batch_job.land: 3 of 3 rows succeeded, ")
    html = mail.get_body(("html",)).get_content()
    assert "Rows: 3 (3 succeeded)<br>" in html
    assert "Landed in: answers<br>" in html
    assert f'<a href="http://localhost:8080/plugin/llm-batch?dag_id={dag.dag_id}&amp;run_id=' in html


@pytest.mark.usefixtures("_warehouse")
def test_a_job_that_fails_before_it_exists_is_reported_once_although_it_is_retried(
    messages: list[Any], record: Callable[[Any], None]
) -> None:
    from datetime import timedelta

    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job.override(default_args={"retries": 1, "retry_delay": timedelta(0)})(
            **ARGUMENTS | {"sql": "SELECT * FROM absent"}, notify=record
        )

    assert run_dag(dag).state == "failed"

    (message,) = messages
    assert (message.state, message.subject) == ("failed", f"{dag.dag_id}.batch_job.submit failed")
    assert ("Error: AbsentTableError: " if PASSES_ERRORS else "Error: See the log of the task. ") in message.text
    assert message.url.startswith(f"http://localhost:8080/dags/{dag.dag_id}/runs/")
    assert (message.outcomes, message.cost) == ({}, "unknown")


@pytest.mark.usefixtures("_warehouse")
def test_a_job_with_too_many_failed_rows_is_reported_with_its_outcomes_and_what_to_do(
    messages: list[Any], record: Callable[[Any], None]
) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job(
            **ARGUMENTS | {"prompt": "{{ row.title }}{{ '[[fail:400]]' if row.id == 't1' else '' }}"},
            max_attempts=1,
            notify=[record, BatchJobNotifier(record, states=["finished", "withheld"])],
        )

    assert run_dag(dag).state == "failed"

    (message,) = messages
    assert message.state == "failed"
    assert message.outcomes == {"succeeded": 2, "failed": 1}
    assert message.text.startswith(f"{dag.dag_id}.batch_job.land failed.\nRun: ")
    assert ("Error: TooManyFailuresError: " if PASSES_ERRORS else "Error: See the log of the task. ") in message.text
    assert "\nNext: " in message.text
    assert "/plugin/llm-batch?" in message.url


@pytest.mark.usefixtures("_warehouse")
def test_rows_that_a_budget_withheld_are_reported_although_the_task_succeeded(
    messages: list[Any], record: Callable[[Any], None], faulty_server: LocalServer
) -> None:
    from airflow_provider_batch.task_groups import batch_job

    faulty_server.set_faults(DEAR)
    with new_dag() as dag:
        batch_job(**ARGUMENTS | JOB_THAT_EXCEEDS_ITS_CEILING, max_failure_rate=1, notify=record)

    assert run_dag(dag).state == "success"

    (message,) = messages
    assert message.state == "withheld"
    assert f"{message.outcomes['withheld']} of 60 rows were not sent, because a budget does not cover them" in (
        message.subject
    )


@pytest.mark.usefixtures("_warehouse")
def test_the_cost_of_a_job_that_has_not_landed_is_not_known_yet(
    messages: list[Any], record: Callable[[Any], None]
) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with new_dag() as dag:
        BatchSubmitOperator(
            task_id="submit",
            sql="SELECT id, body FROM tickets",
            custom_id="{{ row.id }}",
            warehouse_conn_id="warehouse",
            model="gpt-5-mini",
            prompt="{{ row.body }}",
            canary=0,
            on_success_callback=BatchJobNotifier(record),
        )

    assert run_dag(dag).state == "success"

    (message,) = messages
    assert message.subject == f"{dag.dag_id}.submit: 0 of 3 rows succeeded"
    assert "\nCost: not known yet (estimate: " in message.text


@pytest.mark.usefixtures("_warehouse")
def test_a_notification_that_cannot_be_sent_does_not_fail_the_task() -> None:
    from airflow_provider_batch.task_groups import batch_job

    def fail(context: Any) -> None:
        raise RuntimeError("The chat is away.")

    with new_dag() as dag:
        batch_job(**ARGUMENTS, notify=fail)

    assert run_dag(dag).state == "success"


@pytest.mark.usefixtures("_warehouse")
def test_the_end_of_a_job_is_reported_although_its_folder_is_gone(
    messages: list[Any], record: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.links.batch import LEDGER_KEY

    @task(on_success_callback=BatchJobNotifier(record))
    def leave_a_broken_address(ti: Any = None) -> None:
        ti.xcom_push(key=LEDGER_KEY, value="nowhere://folder")

    with new_dag() as dag:
        leave_a_broken_address()

    assert run_dag(dag).state == "success"
    (message,) = messages
    assert message.state == "finished"
    assert "The job cannot be read (" in message.text


def context_of(exception: BaseException | None, task_state: str = "") -> dict[str, Any]:
    class Instance:
        state = task_state or ("success" if exception is None else "failed")
        dag_id, run_id, task_id, map_index = "labels", "manual__1", "land", 2
        rendered_map_index = "DE"
        log_url = "http://localhost:8080/log"

        def xcom_pull(self, key: str) -> None:
            return None

    return {"ti": Instance(), "exception": exception}


def test_a_secret_in_an_error_is_masked_and_its_control_characters_are_removed(
    messages: list[Any], record: Callable[[Any], None]
) -> None:
    from airflow.sdk.log import mask_secret

    mask_secret(KEY)
    BatchJobNotifier(record)(context_of(ValueError(f"Bad key {KEY}\x1b[2J <!channel> {'x' * 10_000}")))

    (message,) = messages
    assert message.subject == "labels.land [DE] failed"
    assert KEY not in message.text
    assert "\x1b" not in message.text
    assert "&lt;!channel&gt;" in message.slack
    assert "&lt;!channel&gt;" in message.html
    assert len(message.text) < 2_000


def test_a_task_whose_worker_was_killed_is_reported_as_failed(
    messages: list[Any], record: Callable[[Any], None]
) -> None:
    # The DAG processor calls the callback then, without an exception and without a state.
    BatchJobNotifier(record)(context_of(None, task_state="None"))

    (message,) = messages
    assert message.state == "failed"
    assert "the worker was probably killed" in message.error


@pytest.mark.parametrize(
    ("reason", "subject", "error"),
    [("success", "labels succeeded", ""), ("task_failure", "labels failed", "task_failure")],
)
def test_a_callback_of_a_dag_tells_how_the_run_ended(
    messages: list[Any], record: Callable[[Any], None], reason: str, subject: str, error: str
) -> None:
    from airflow.sdk import DAG

    BatchJobNotifier(record)({"dag": DAG("labels", schedule=None), "run_id": "manual__1", "reason": reason})

    (message,) = messages
    assert (message.subject, message.error) == (subject, error)
    assert message.url == "http://localhost:8080/dags/labels/runs/manual__1"


def test_the_fields_of_a_notifier_that_the_author_sets_are_kept_and_rendered_for_each_task() -> None:
    from airflow.providers.common.compat.sdk import BaseNotifier

    class Chat(BaseNotifier):
        template_fields = ("text", "channel")
        sent: ClassVar[list[tuple[str, str]]] = []

        def __init__(self, channel: str, text: str = "This is the default message") -> None:
            super().__init__()
            self.channel, self.text = channel, text

        def notify(self, context: Any) -> None:
            self.sent.append((self.channel, self.text))

    for notifier in (BatchJobNotifier(Chat("#{{ batch_job.state }}")), BatchJobNotifier(Chat("#b", text="Own."))):
        notifier(context_of(None))
        notifier(context_of(ValueError("Broken.")))

    assert [(channel, text.partition("\n")[0]) for channel, text in Chat.sent] == [
        ("#finished", "labels.land [DE] succeeded."),
        ("#failed", "labels.land [DE] failed."),
        ("#b", "Own."),
        ("#b", "Own."),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"notifier": "slack"}, "notifier must be a notifier such as SmtpNotifier"),
        ({"notifier": BatchJobNotifier}, "notifier must be a notifier"),
        ({"notifier": print, "states": []}, "states must be some of finished, withheld, failed, not none"),
        ({"notifier": print, "states": "succeeded"}, "not succeeded"),
        ({"notifier": print, "state": "failed"}, "no argument 'state'. Its arguments are notifier and states"),
    ],
)
def test_a_wrong_argument_is_an_error_while_the_dag_is_parsed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BatchJobNotifier(**arguments)


def test_batch_job_refuses_what_is_no_notifier() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError, match="notifier must be a notifier"):
        batch_job(**ARGUMENTS, notify="slack_default")
