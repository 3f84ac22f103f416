"""The columns of a results table, in the order of the values in a landing's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.paths import Path, column_type
from airflow_provider_batch.core.sealing import carry
from airflow_provider_batch.exceptions import SchemaError

#: the columns of every results table after its key, in order; `output` gets its type from the endpoint
FIXED_COLUMNS = (
    Column("outcome", ColumnType.TEXT),
    Column("output", ColumnType.TEXT, may_be_null=True),
    Column("finish_reason", ColumnType.TEXT, may_be_null=True),
    Column("error_code", ColumnType.TEXT, may_be_null=True),
    Column("error_message", ColumnType.TEXT, may_be_null=True),
    Column("model", ColumnType.TEXT),
    Column("input_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("cached_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("reasoning_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("output_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("cost_usd", ColumnType.NUMERIC, may_be_null=True),
    Column("attempt", ColumnType.INTEGER),
    Column("request_sha256", ColumnType.TEXT),
    Column("batch_id", ColumnType.TEXT, may_be_null=True),
    Column("job_uid", ColumnType.TEXT),
    Column("run_id", ColumnType.TEXT),
    Column("logical_date", ColumnType.TIMESTAMP, may_be_null=True),
    Column("sealed_at", ColumnType.TIMESTAMP),
    Column("landed_at", ColumnType.TIMESTAMP),
)


def results_columns(
    manifest: Manifest,
    *,
    key: Mapping[str, Any],
    columns: Mapping[str, Path],
    history: bool = False,
    store_response: bool = False,
) -> list[Column]:
    """Return the columns that a landing writes, in the order of the values in its rows.

    :param key: extra key columns, with the value that every row of this landing gets.
    :param columns: path in the structured output, by column name; the types come from the schema.
    :param history: whether the table keeps the answers of every job, so that `job_uid` is part of the key.
    :param store_response: whether to add a `response` column with the body of each answer.
    :raises SchemaError: if two columns have the same name, the schema has no such path, there are `columns` but no
        schema, or no column type can hold a key value.
    """
    if columns and manifest.author_schema is None:
        raise no_schema_error(columns)
    result_columns = [_key_column(name, value) for name, value in key.items()]
    result_columns.append(Column("custom_id", ColumnType.TEXT, key=True))
    for column in FIXED_COLUMNS:
        if column.name == "output":
            column = Column("output", output_type(manifest), may_be_null=True, elements=manifest.dimensions)
        elif column.name == "job_uid" and history:
            column = Column("job_uid", ColumnType.TEXT, key=True)
        result_columns.append(column)
    result_columns.extend(manifest.carry)
    result_columns.extend(
        Column(name, column_type(manifest.author_schema or {}, path), may_be_null=True)
        for name, path in columns.items()
    )
    if store_response:
        result_columns.append(Column("response", ColumnType.JSON, may_be_null=True))
    check_names(column.name for column in result_columns)
    return result_columns


def check_names(names: Iterable[str]) -> None:
    """Raise SchemaError if two columns of a results table have the same name. Case does not count."""
    counts = Counter(name.lower() for name in names)
    repeated_names = [name for name, count in counts.items() if count > 1]
    if repeated_names:
        raise SchemaError(
            f"The results table would have two columns named {repeated_names[0]!r}: key=, carry=, columns= and the "
            "table's own columns must all have different names. Rename one of them (a carried column with AS in the "
            f'SQL, a field with columns={{"another_name": "{repeated_names[0]}"}}).'
        )


def no_schema_error(columns: Iterable[str]) -> SchemaError:
    """Return the error for columns that answers without a schema cannot fill."""
    return SchemaError(
        f"columns= names {', '.join(columns)}, but the job has no output_schema, so its answers have no fields. Pass "
        "an output_schema to BatchSubmitOperator, or remove columns=."
    )


def _key_column(name: str, value: Any) -> Column:
    try:
        return Column(name, carry.type_of(value), key=True)
    except TypeError as error:
        raise SchemaError(
            f"key= sets column {name!r} to {value!r}, but a value of type {error} cannot be part of a key. Use text, a "
            "number or a date."
        ) from None


def output_type(manifest: Manifest) -> ColumnType:
    """Return the type of the column `output`, which depends on the endpoint."""
    if manifest.endpoint.endswith("/embeddings"):
        return ColumnType.JSON if manifest.several_inputs else ColumnType.VECTOR
    return ColumnType.JSON if manifest.endpoint.endswith("/moderations") else ColumnType.TEXT
