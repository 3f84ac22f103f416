"""The errors that end a build: a row that no input file takes, too many models, and repeated custom_ids."""

from __future__ import annotations

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.provider.limits import Limits, Size
from airflow_provider_batch.core.sealing.unique import RepeatedIds
from airflow_provider_batch.exceptions import CustomIdError, InputError, RowTooLargeError

#: maximum number of models in a job; each has a shard open until the end
MAX_MODELS = 100


def row_too_large_error(row: RowIndex, size: Size, limits: Limits, limit_name: str) -> RowTooLargeError:
    """Return the error of a row whose request exceeds a limit on its own."""
    maximum = f"{getattr(limits, limit_name):,}"
    actual = f"{getattr(size, limit_name):,}"
    match limit_name:
        case "bytes":
            problem = f"makes a request of {actual} bytes, but an input file may have at most {maximum}"
            advice = "Shorten it in the SQL, or leave the row out."
        case "inputs":
            problem = f"has {actual} embedding inputs, but an input file may have at most {maximum}"
            advice = "Spread them over several rows in the SQL, or leave the row out."
        case "tokens":
            problem = f"has about {actual} input tokens, but an input file may have at most {maximum}"
            advice = "Shorten it in the SQL, leave the row out, or raise `tokens` in limits."
        case _:
            problem = f"would get an answer of about {actual} bytes, but a result file may have at most {maximum}"
            advice = "Request less at once (`n`, inputs, log-probabilities), or raise `output_bytes` in limits."
    return RowTooLargeError(f"Row {row.number} (custom_id {row.custom_id!r}) {problem}. Nothing was uploaded. {advice}")


def too_many_models_error() -> InputError:
    """Return the error of a job whose rows use more than `MAX_MODELS` models."""
    return InputError(
        f"model: the rows use more than {MAX_MODELS} models, and each model needs its own input files. Nothing was "
        "uploaded. Check that the model template reads the right column."
    )


def repeated_ids_error(repeated_ids: RepeatedIds) -> CustomIdError:
    """Return the error of a job in which several rows have the same custom_id."""
    count = len(repeated_ids.rows)
    examples = ", ".join(
        f"{custom_id!r} (rows {_format_numbers(numbers)})" for custom_id, numbers in list(repeated_ids.rows.items())[:5]
    )
    return CustomIdError(
        f"custom_id: {'' if repeated_ids.complete else 'at least '}{format_count(count, 'custom_id')} "
        f"{'is' if count == 1 else 'are'} used by more than one row: {examples}{', …' if count > 5 else ''}. Nothing "
        "was uploaded. A custom_id must identify one row of a job: add columns to the template, for example "
        "'{{ row.id }}-{{ row.version }}', or select each row only once."
    )


def _format_numbers(numbers: list[int]) -> str:
    text = ", ".join(str(number) for number in sorted(numbers)[:4])
    return f"{text}, …" if len(numbers) > 4 else text
