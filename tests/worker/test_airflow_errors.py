"""What a person reads in the log of a task that fails: the reason first, and a stack only if it may help."""

from __future__ import annotations

import logging
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_batch.exceptions import InputError, ProviderError
from airflow_provider_batch.worker.airflow_errors import airflow_failures

LOG = logging.getLogger("task")
REASON = "The job would cost at least $0.50, but max_cost_usd is $0.10. " * 4


def test_the_reason_is_logged_first_in_lines_that_fit_on_a_page(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException), airflow_failures(LOG):
        raise InputError(REASON + "\nNothing was uploaded.")

    (record,) = caplog.records
    lines = record.getMessage().split("\n")
    assert record.levelname == "ERROR"
    assert lines[0].startswith("InputError: The job would cost at least $0.50, but ")
    assert lines[-1] == "Nothing was uploaded."
    assert " ".join(lines[:-1]) == f"InputError: {REASON}".strip()
    assert max(map(len, lines)) <= 100


def test_an_error_that_no_retry_can_fix_brings_no_stack_of_its_own_into_the_log() -> None:
    def render_rows() -> None:
        try:
            raise KeyError("titel")
        except KeyError as error:
            raise InputError("There is no column 'titel'.") from error

    with pytest.raises(AirflowFailException) as raised, airflow_failures(LOG):
        render_rows()

    stack = "".join(traceback.format_exception(raised.value))
    assert "AirflowFailException: InputError: There is no column 'titel'." in stack
    assert "KeyError" not in stack
    assert "direct cause" not in stack


def test_at_the_level_debug_the_whole_stack_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(AirflowFailException), airflow_failures(LOG):
        raise InputError("There is no column 'titel'.")

    assert [record.levelname for record in caplog.records] == ["ERROR", "DEBUG"]
    assert caplog.records[1].exc_info


def test_an_error_that_a_retry_may_fix_keeps_its_type_and_its_cause() -> None:
    cause = TimeoutError("timed out")
    with pytest.raises(ProviderError) as raised, airflow_failures(LOG):
        raise ProviderError("The provider did not answer.") from cause

    assert raised.value.__cause__ is cause
