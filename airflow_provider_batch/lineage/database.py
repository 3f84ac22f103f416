"""Tables with the namespaces and names that the official SQL providers give them, so that graphs of lineage join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.openlineage.sqlparser import DatabaseInfo, SQLParser
from openlineage.client.facet_v2 import schema_dataset

from airflow_provider_batch.lineage.facets import Field
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.dialects.registry import dialect_of

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage
    from openlineage.client.event_v2 import Dataset

#: protocols with more than one spelling, as OpenLineage spells them
_PROTOCOLS = {"s3a": "s3", "gcs": "gs", "": "file"}


class Database:
    """The database behind a connection."""

    def __init__(self, conn_id: str) -> None:
        self._hook = sql_hook(conn_id)
        connection: Any = self._hook.get_connection(conn_id)
        self.dialect = dialect_of(self._hook)
        official_info = self._hook.get_openlineage_database_info(connection)
        self._info = official_info or _database_info(connection)
        self._parser = SQLParser(
            dialect=self._hook.get_openlineage_database_dialect(connection),
            default_schema=self._hook.get_openlineage_default_schema() if official_info else "main",
        )
        #: whether the database describes its tables in an information schema
        self.has_schemas = official_info is not None or connection.conn_type == "duckdb"

    def lineage_of(self, sql: str) -> OperatorLineage[Any, Any]:
        """Return what the official providers report of a query: its tables, with their columns, and its text."""
        return self._parser.generate_openlineage_metadata_from_sql(
            sql=sql, hook=self._hook, database_info=self._info, use_connection=self.has_schemas
        )

    def table(self, name: str) -> Dataset:
        """Return an existing table. `name` is `schema.table` or `table`."""
        dataset: Dataset
        (dataset,) = self.lineage_of(f"SELECT * FROM {self.dialect.table(name)}").inputs
        return dataset

    def sources_of(self, sql: str, tables: Iterable[Dataset]) -> Mapping[str, list[Field]]:
        """Return the columns of tables from which each column of a query comes, by the column's name in lower case.

        Columns that `*` stands for are known if the query reads a single table whose columns are known.
        """
        datasets = list(tables)
        sources: dict[str, list[Field]] = {}
        if len(datasets) == 1:
            only = datasets[0]
            sources = {name.lower(): [Field(only.namespace, only.name, name)] for name in _column_names(only)}
        result = self._parser.parse(self._parser.split_sql_string(sql))
        for column in result.column_lineage if result else ():
            sources[column.descendant.name.lower()] = [
                Field(table.namespace, table.name, source.name)
                for source in column.lineage
                if (table := _find(source.origin, datasets)) is not None
            ]
        return sources


def _database_info(connection: Any) -> DatabaseInfo:
    """Return the names for a database whose provider has none, such as DuckDB and SQLite.

    A file of DuckDB gets the name that OpenLineage's integration of dbt gives it.
    """
    return DatabaseInfo(
        scheme=connection.conn_type,
        authority=connection.host,
        database=Path(connection.host or "").stem if connection.conn_type == "duckdb" else None,
        information_schema_columns=["table_schema", "table_name", "column_name", "ordinal_position", "data_type"],
    )


def _find(table: Any, datasets: Iterable[Dataset]) -> Dataset | None:
    """Return the dataset of a table that the parser found in a query."""
    if table is None:
        return None
    name = table.qualified_name.lower()
    return next((dataset for dataset in datasets if f".{dataset.name.lower()}".endswith(f".{name}")), None)


def _column_names(dataset: Dataset) -> list[str]:
    schema = (dataset.facets or {}).get("schema")
    return (
        [field.name for field in schema.fields or ()] if isinstance(schema, schema_dataset.SchemaDatasetFacet) else []
    )


def file_name(address: str) -> tuple[str, str]:
    """Return the namespace and the name of a file or folder: its bucket and its path there, or its path on the disk."""
    parts = urlsplit(address)
    protocol = _PROTOCOLS.get(parts.scheme, parts.scheme)
    if protocol == "file":
        return "file", parts.path
    # the part before the @ is an Airflow connection
    return f"{protocol}://{parts.netloc.rpartition('@')[2]}", parts.path.strip("/")
