"""Errors about a missing table are distinguished from errors about missing access."""

from __future__ import annotations

import pytest

from airflow_provider_batch.warehouse.errors import is_absent_table


class DriverError(Exception):
    """An exception as a driver raises it."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    "error",
    [
        DriverError("(208, b\"Invalid object name 'dbo.labels'.DB-Lib error message 20018, severity 16\")"),
        DriverError("TrinoUserError(type=USER_ERROR, name=TABLE_NOT_FOUND, message=\"line 1:15: Table 'a.b.labels' "),
        DriverError("[TABLE_OR_VIEW_NOT_FOUND] The table or view `labels` cannot be found. SQLSTATE: 42P01"),
        DriverError("{'S': 'ERROR', 'C': '42P01', 'M': 'relation \"labels\" does not exist'}"),
        DriverError("404 Not found: Table project:data.labels was not found in location EU"),
        DriverError("Object 'LABELS' does not exist.", sqlstate="42S02"),
    ],
    ids=["sql-server", "trino", "databricks", "redshift", "bigquery", "odbc"],
)
def test_a_missing_table_is_recognised_by_code_or_message(error: DriverError) -> None:
    assert is_absent_table(error)


@pytest.mark.parametrize(
    "error",
    [
        DriverError("002003 (42S02): Object 'LABELS' does not exist or not authorized.", sqlstate="42S02"),
        DriverError("ORA-00942: table or view does not exist"),
        DriverError("403 Access Denied: Table project:data.labels: User does not have permission, or it may not exist"),
        DriverError("The SELECT permission was denied on the object 'labels'", sqlstate="42000"),
        DriverError("Catalog Error: Scalar Function with name labels does not exist!"),
        DriverError("could not connect to server"),
    ],
    ids=["snowflake", "oracle", "bigquery", "sql-server", "function", "connection"],
)
def test_an_error_that_may_mean_missing_access_is_not_taken_for_a_missing_table(error: DriverError) -> None:
    assert not is_absent_table(error)
