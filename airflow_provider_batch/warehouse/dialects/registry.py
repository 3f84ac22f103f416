"""All dialects, and the lookup of the one that a hook or an error belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_batch.warehouse.dialects import generic
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.dialects.duckdb import DUCKDB
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.dialects.sqlite import SQLITE
from airflow_provider_batch.warehouse.drivers.base import ANY_DRIVER, Driver

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: The first dialect that recognises a hook wins. A dialect that also looks at the connection's extra therefore comes
#: before the one with the same connection type.
DIALECTS: tuple[Dialect, ...] = (
    generic.REDSHIFT_OVER_POSTGRES,
    POSTGRES,
    SQLITE,
    DUCKDB,
    MYSQL,
    generic.SNOWFLAKE,
    generic.REDSHIFT,
    generic.SQL_SERVER,
    generic.ORACLE,
    generic.TRINO,
    generic.DATABRICKS,
    generic.BIGQUERY,
)


#: a dialect of sqlglot with these opening quotation marks of identifiers, for databases that it does not know
_SQLGLOT_BY_MARK = {"`": "spark", "[": "tsql"}


def dialect_of(hook: DbApiHook) -> Dialect:
    """Return the dialect of the database that this hook reaches.

    A subclass of a known hook has the dialect of its own connection type or, if there is none, the dialect of its
    parent.
    """
    for cls in type(hook).__mro__:
        for dialect in DIALECTS:
            if dialect.recognises(cls, hook):
                return dialect.adapt_to(hook)
    generic_dialect = generic.GENERIC.adapt_to(hook)
    # sqlglot knows more databases, mostly by the names that Airflow gives to the types of their connections
    names = (getattr(hook, "conn_type", ""), _SQLGLOT_BY_MARK.get(generic_dialect.marks[:1], ""))
    reading = replace(generic_dialect.reading, sqlglot=names)
    return replace(generic_dialect, reading=reading)


def driver_of(error: BaseException) -> Driver:
    """Return the driver that raised the error, even if no dialect recognises the hook that uses it."""
    return next((dialect.driver for dialect in DIALECTS if dialect.driver.has_raised(error)), ANY_DRIVER)
