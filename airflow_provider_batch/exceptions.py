"""Every error that can end a task or a command, in one tree.

    BatchError
        InputError *
            TemplateError *
            CustomIdError *
            RowTooLargeError *
            SchemaError *
            BudgetError *
            CanaryError *
        EqualDigestsError
        WarehouseError
            WarehouseConnectionError *
            AbsentTableError
            ResultsTableError *
        StagingError
            LedgerError *
        ProviderError
            AwayError
            CapacityError
            BrokenDownloadError
            JobHeldError
        StoppedError
        TooManyFailuresError *

A message says what happened, to which job, shard, row or column, what was kept, and what to do next. An asterisk marks
the errors that running the same task again cannot help (`retry` is False): the operators turn them into Airflow's
`AirflowFailException`, so that no retry is wasted on them.
"""

from __future__ import annotations

__all__ = [
    "AbsentTableError",
    "AwayError",
    "BatchError",
    "BrokenDownloadError",
    "BudgetError",
    "CanaryError",
    "CapacityError",
    "CustomIdError",
    "EqualDigestsError",
    "InputError",
    "JobHeldError",
    "LedgerError",
    "ProviderError",
    "ResultsTableError",
    "RowTooLargeError",
    "SchemaError",
    "StagingError",
    "StoppedError",
    "TemplateError",
    "TooManyFailuresError",
    "WarehouseConnectionError",
    "WarehouseError",
]


class BatchError(Exception):
    """The root of the tree."""

    #: whether an Airflow retry of the same task can help
    retry: bool = True


class InputError(BatchError):
    """The DAG's arguments or the rows are wrong. Raised before anything is uploaded or billed."""

    retry = False


class TemplateError(InputError):
    """A row template names an unknown column, has a syntax error, or gives no usable value."""


class CustomIdError(InputError):
    """A custom_id is empty, None, bytes, or given twice."""


class RowTooLargeError(InputError):
    """One request alone is over the limit of an input file."""


class EqualDigestsError(BatchError):
    """Two different requests were taken for one by chance. Sealing again, which a retry does, tells them apart."""


class SchemaError(InputError):
    """An output schema that strict structured output cannot express, or columns that it does not have."""


class BudgetError(InputError):
    """The lowest estimate of the job's price is over `max_cost_usd`."""


class CanaryError(InputError):
    """The first requests were refused for what all requests of their model have in common. Nothing was uploaded."""


class WarehouseError(BatchError):
    """The warehouse refused a query, a connection or a write."""


class WarehouseConnectionError(WarehouseError):
    """The connection does not exist, or has no SQL hook."""

    retry = False


class AbsentTableError(WarehouseError):
    """The warehouse says that a table is not there; not that it may not be seen."""


class ResultsTableError(WarehouseError):
    """The results table exists, but its columns or key do not fit what is to be landed."""

    retry = False


class StagingError(BatchError):
    """Staging cannot be written or read, or what lies there does not match its checksum."""


class LedgerError(StagingError):
    """A job's record contradicts itself or is of a version this package does not know."""

    retry = False


class ProviderError(BatchError):
    """The batch provider refused a call, or answered with something that is no answer."""


class AwayError(ProviderError):
    """The provider gave no answer of use just now. Nothing is known anew, and the same call may be answered later."""


class CapacityError(ProviderError):
    """The provider takes no more just now (HTTP 429, or a Retry-After): the same call may be made later.

    :param retry_after: seconds after which it asks to be called again; None if it does not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BrokenDownloadError(ProviderError):
    """A result file broke off on its way. The provider still has it; what came of it is used for nothing."""


class JobHeldError(ProviderError):
    """Billing, quota or access stops the job. Everything is kept; clear the task once that is mended."""


class StoppedError(BatchError):
    """The worker was told to end (SIGTERM); no further paid call is made. What was done is recorded."""


class TooManyFailuresError(BatchError):
    """More rows ended unsuccessfully than `max_failure_rate` allows. All of them were landed first."""

    retry = False
