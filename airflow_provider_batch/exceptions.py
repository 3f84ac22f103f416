"""All errors that can end a task or a command, in one tree.

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
        FileStoreError
        StagingError
            UnusableStagingError *
            LedgerError *
        ProviderError
            AwayError
            CapacityError
            BrokenDownloadError
            JobHeldError
        StoppedError
        TooManyFailuresError *

Each message says what happened (to which job, shard, row or column), what was kept, and what to do next.

An asterisk marks errors that running the task again cannot fix (`retry` is False). The operators turn these into
Airflow's `AirflowFailException`, so that Airflow does not retry the task.
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
    "FileStoreError",
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
    "UnusableStagingError",
    "WarehouseConnectionError",
    "WarehouseError",
]


class BatchError(Exception):
    """Base class of all errors of this package."""

    #: whether the task can succeed if it is run again
    retry: bool = True


class InputError(BatchError):
    """Raised before anything is uploaded or billed if the arguments or the rows are wrong."""

    retry = False


class TemplateError(InputError):
    """Raised if a row template names an unknown column, has a syntax error, or renders to an unusable value."""


class CustomIdError(InputError):
    """Raised if a custom_id is empty, None, bytes, or used by two rows."""


class RowTooLargeError(InputError):
    """Raised if a single request exceeds the limits of an input file."""


class EqualDigestsError(BatchError):
    """Raised if two different requests happen to have the same short digest. A retry computes new digests."""


class SchemaError(InputError):
    """Raised if strict structured output cannot express the output schema, or the schema lacks a requested column."""


class BudgetError(InputError):
    """Raised if the low estimate of the job's cost exceeds `max_cost_usd`, or no price is known to compute it."""


class CanaryError(InputError):
    """Raised if no canary request of a model got a usable answer. Nothing was uploaded.

    :param retry: whether another try may succeed, because the server failed on every request (HTTP 500 and the like).
    """

    def __init__(self, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


class WarehouseError(BatchError):
    """Raised if the warehouse refuses a connection, a query or a write."""


class WarehouseConnectionError(WarehouseError):
    """Raised if the warehouse connection does not exist or has no SQL hook."""

    retry = False


class AbsentTableError(WarehouseError):
    """Raised if a table does not exist. A table that the user may not read is a `WarehouseError`."""


class ResultsTableError(WarehouseError):
    """Raised if the columns or the key of an existing results table do not fit the rows to be landed."""

    retry = False


class FileStoreError(BatchError):
    """Raised if the store of the files that hold the rows, or that rows name, cannot be read. Nothing was sent."""


class StagingError(BatchError):
    """Raised if staging cannot be read or written, or a staged file does not match its checksum."""


class UnusableStagingError(StagingError):
    """Raised before anything is uploaded or billed if a job could be lost or paid for twice where staging is."""

    retry = False


class LedgerError(StagingError):
    """Raised if the ledger of a job contradicts itself or has a format that this version does not support."""

    retry = False


class ProviderError(BatchError):
    """Raised if the batch provider refuses a call or sends an invalid response."""


class AwayError(ProviderError):
    """Raised if a batch cannot be read right now: no usable answer, or HTTP 408, 409, 429 or 5xx.

    The batch is not affected, and a later read may succeed.
    """


class CapacityError(ProviderError):
    """Raised if the provider accepts no more work for now (HTTP 429, or a Retry-After header).

    :param retry_after: seconds to wait before the same call, as the provider requested; None if it did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BrokenDownloadError(ProviderError):
    """Raised if a result file arrives incomplete, or a web page arrives in its place.

    The provider still has the file, and the partial download is never used.
    """


class JobHeldError(ProviderError):
    """Raised if billing, quota or access stops the job. Everything is kept. Fix the account, then clear the task."""


class StoppedError(BatchError):
    """Raised before the next paid call if the worker received SIGTERM. Everything done so far is recorded."""


class TooManyFailuresError(BatchError):
    """Raised after landing if the share of rows that did not succeed exceeds `max_failure_rate`."""

    retry = False
