"""A common interface to mysqlclient and mysql-connector-python: cursors, session, values, errors.

Airflow's MySqlHook returns a connection from either package, and the connection's `cursor` extra can turn rows into
dicts. Every cursor created here returns plain tuples. The cursor also decides whether a result is held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.exceptions import InputError, WarehouseError
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.drivers.base import (
    QUOTED_TEXT,
    Driver,
    ExactQuery,
    Reading,
    RowReader,
    row_converter,
)

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: codes of column types and flags in MySQL's protocol (field_types.h, mysql_com.h)
_BIT, _TINY_BLOB, _MEDIUM_BLOB, _LONG_BLOB, _BLOB, _VAR_STRING, _STRING = 16, 249, 250, 251, 252, 253, 254

_DECIMAL, _LARGEST_SCALE = 246, 30
#: types whose text is read instead of the driver's value, with the function that converts it: TIMESTAMP, DATE, TIME,
#: DATETIME
_TEXT_TYPES: Mapping[int, Callable[[str], Any]] = {
    7: values.timestamp_or_text,
    10: values.date_or_text,
    11: values.time_or_text,
    12: values.timestamp_or_text,
}
#: A TIMESTAMP is read in the time zone of the session, and stored as it was read.
_NATIVE_TYPES = {
    4: "FLOAT",
    7: "DATETIME(6)",
    10: "DATE",
    11: "TIME(6)",
    12: "DATETIME(6)",
    245: "JSON",
    255: "GEOMETRY",
}

#: Seconds the server waits for a slow reader before it closes the connection. The server's default is 60.
_READER_SECONDS = 3600

#: MYSQL_OPTION_MULTI_STATEMENTS_OFF in mysql_com.h
_MULTI_STATEMENTS_OFF = 1

_ESCAPED_QUOTE = re.compile(r"""(?<!\\)(?:\\\\)*\\['"]""")

#: errors whose messages quote names, not values, with their SQLSTATE, which mysqlclient does not provide
_SAFE_ERRORS: Mapping[int, str] = {
    1044: "42000",  # access denied to a database
    1045: "28000",  # access denied
    1046: "3D000",  # no database selected
    1048: "23000",  # a column cannot be null
    1049: "42000",  # unknown database
    1052: "23000",  # ambiguous column
    1054: "42S22",  # unknown column
    1059: "42000",  # name too long
    1071: "42000",  # key too long
    1103: "42000",  # invalid table name
    1114: "HY000",  # table full
    1118: "42000",  # row too large
    1142: "42000",  # command denied on a table
    1143: "42000",  # command denied on a column
    1146: "42S02",  # no such table
    1166: "42000",  # invalid column name
    1205: "HY000",  # lock wait timeout
    1213: "40001",  # deadlock
    1227: "42000",  # privilege needed
    1264: "22003",  # out of range
    1265: "01000",  # data truncated, such as a text that is not a member of an ENUM
    1290: "HY000",  # read-only server
    1364: "HY000",  # no default value
    1370: "42000",  # routine denied
    1406: "22001",  # too long
    1452: "23000",  # foreign key
    1792: "25006",  # read-only transaction
    1906: "42000",  # generated column (MariaDB)
    3105: "42000",  # generated column (MySQL)
    3819: "23000",  # check constraint (MySQL)
    4025: "23000",  # check constraint (MariaDB)
}
#: Errors because of a row's values that the SQLSTATE does not reveal: an invalid value of a type, no partition for a
#: row, a check constraint, a trigger's SIGNAL
_DATA_ERRORS = (1265, 1292, 1366, 1411, 1416, 1525, 1526, 1644, 1690, 1748, 3140, 3141, 3157, 3819, 4025, 4078)
#: a trigger's SIGNAL
_SIGNAL = 1644
#: the client's own errors: no server, connection lost
_CLIENT_CODES = range(2000, 2100)

_VALUE_FOR = re.compile(r"""['"].*['"](?= for (?:column|key) )""", re.DOTALL)


class MysqlDriver(Driver):
    """mysqlclient or mysql-connector-python, whichever Airflow's hook connects with."""

    packages = ("MySQLdb", "mysql.connector")

    def begin_reading(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a read-only transaction for a reader that may pause; return a cursor that leaves rows on the server."""
        refuse_several_statements(conn)
        use_utf8(conn)
        cursor = plain_cursor(conn)
        cursor.execute(f"SET SESSION net_write_timeout = {_READER_SECONDS}")
        cursor.execute("START TRANSACTION READ ONLY")
        cursor.close()
        return unbuffered_cursor(conn)

    def execute(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> None:
        """Run the query. Raises InputError if the session reads backslashes in it otherwise than our check did."""
        if _ESCAPED_QUOTE.search(sql):
            settings = plain_cursor(conn)
            settings.execute("SELECT @@sql_mode")
            ((modes,),) = settings.fetchall()
            settings.close()
            for mode in ("NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"):
                if mode in modes.split(","):
                    raise InputError(
                        f"sql has a backslash before a quotation mark, and the sql_mode of this connection contains "
                        f"{mode}, so it is not certain where the text ends. Double the quotation mark instead. Nothing "
                        "was run, and nothing was uploaded."
                    )
        super().execute(conn, cursor, sql, parameters)

    def row_reader(self, conn: Any, description: Any) -> RowReader:
        """Return a function that also converts values that the two drivers return differently."""
        return row_converter(_converters(description))

    def exact_query(self, conn: Any, cursor: Any, sql: str, parameters: Any) -> ExactQuery:
        """Let the driver return the server's text of dates and times, and convert it.

        Neither driver can return a zero date, nor a time that is negative or has more than 24 hours.
        """
        _read_as_text(conn)
        return ExactQuery(sql, lambda: self._exact_reading(conn, cursor.description))

    def _exact_reading(self, conn: Any, description: Any) -> Reading:
        read_row = self.row_reader(conn, description)
        convert_texts = row_converter(
            {index: _TEXT_TYPES[column[1]] for index, column in enumerate(description) if column[1] in _TEXT_TYPES}
        )
        return Reading(tuple(map(_native_type, description)), lambda row: convert_texts(read_row(row)))

    def begin_writing(self, hook: DbApiHook, conn: Any) -> Any:
        """Start a transaction and return a cursor that returns tuples."""
        use_utf8(conn)
        if hook.supports_autocommit:
            hook.set_autocommit(conn, False)
        return plain_cursor(conn)

    def sqlstate_of(self, error: BaseException) -> str:
        """Return the SQLSTATE, from a table of error numbers if the driver does not provide it."""
        return super().sqlstate_of(error) or _SAFE_ERRORS.get(self.code_of(error) or 0, "")

    def code_of(self, error: BaseException) -> int | None:
        """Return the MySQL error number, or 0 if the driver provides none."""
        if type(error).__module__.startswith("MySQLdb"):
            return error.args[0] if error.args and isinstance(error.args[0], int) else 0
        return getattr(error, "errno", 0) or 0

    def refuses_data(self, error: BaseException) -> bool:
        """Return whether rows were refused, also by errors that have no SQLSTATE of their own."""
        return self.code_of(error) in _DATA_ERRORS or super().refuses_data(error)

    def message_of(self, error: BaseException, *, hide_quoted: bool = False) -> str:
        """Return the server's message without values. The message of a trigger is its author's and may contain them."""
        code = self.code_of(error)
        if code == _SIGNAL:
            return "a trigger refused the row (error 1644)"
        text: str = getattr(error, "msg", None) or str(error.args[-1] if error.args else error)
        if code not in _SAFE_ERRORS and code not in _CLIENT_CODES:
            masked_text = _VALUE_FOR.sub("(value not shown)", text)
            text = masked_text if masked_text != text else QUOTED_TEXT.sub("(value not shown)", text)
        return text.rstrip(".")


MYSQL_DRIVER = MysqlDriver()


def is_mysqlclient(conn: Any) -> bool | None:
    """Return True for mysqlclient, False for mysql-connector-python, None for anything else."""
    for cls in type(conn).__mro__:
        if cls.__module__.startswith("MySQLdb."):
            return True
        if cls.__module__.startswith("mysql.connector."):
            return False
    return None


def plain_cursor(conn: Any) -> Any:
    """Return a cursor that returns tuples and holds the whole result in memory."""
    if is_mysqlclient(conn):
        from MySQLdb.cursors import Cursor

        return conn.cursor(Cursor)
    return conn.cursor(buffered=True)


def unbuffered_cursor(conn: Any) -> Any:
    """Return a cursor that fetches tuples from the server one by one.

    The connection can run no other query until the last row is fetched or the connection is closed.
    """
    if is_mysqlclient(conn):
        from MySQLdb.cursors import SSCursor

        return conn.cursor(SSCursor)
    return conn.cursor(buffered=False)


def refuse_several_statements(conn: Any) -> None:
    """Let the server refuse several statements in one call. Both drivers allow them when they connect."""
    if is_mysqlclient(conn):
        conn.set_server_option(_MULTI_STATEMENTS_OFF)
    elif is_mysqlclient(conn) is False:
        from mysql.connector.constants import ClientFlag

        # this driver cannot change the flag of an open connection
        conn.client_flags = [-ClientFlag.MULTI_STATEMENTS]
        conn.reconnect()


def use_utf8(conn: Any) -> None:
    """Use all of Unicode in both directions. mysqlclient would use the server's default, which may be latin1.

    Raises WarehouseError for a connection of another driver.
    """
    mysqlclient = is_mysqlclient(conn)
    if mysqlclient is None:
        raise WarehouseError(
            f"This connection is a {type(conn).__module__}.{type(conn).__name__}, which is neither mysqlclient's nor "
            f"mysql-connector-python's."
        )
    if mysqlclient:
        conn.set_character_set("utf8mb4")
    else:
        conn.set_charset_collation("utf8mb4")


def _read_as_text(conn: Any) -> None:
    if is_mysqlclient(conn):
        conn.converter = {**conn.converter, **dict.fromkeys(_TEXT_TYPES, str)}
    else:
        from mysql.connector.conversion import MySQLConverter

        def text(self: Any, value: Any, description: Any = None) -> str:
            return bytes(value).decode()

        names = ("_date_to_python", "_datetime_to_python", "_timestamp_to_python", "_time_to_python", "_set_to_python")
        conn.converter_class = type("TextConverter", (MySQLConverter,), dict.fromkeys(names, text))


def _native_type(column: Any) -> str:
    """Return the type in which MySQL stores a column's values exactly, or '' if the type for the values does."""
    if column[1] == _DECIMAL:
        # only mysqlclient knows the digits after the decimal point
        return f"DECIMAL(65,{column[5] if isinstance(column[5], int) else _LARGEST_SCALE})"
    return _NATIVE_TYPES.get(column[1], "")


def _converters(description: Any) -> Mapping[int, Callable[[Any], Any]]:
    """Return, by column position, converters for values that the two drivers return differently.

    BIT becomes an int, SET a comma-separated text, BLOB bytes.
    """
    converters: dict[int, Callable[[Any], Any]] = {}
    for index, column in enumerate(description):
        if column[1] == _BIT:
            converters[index] = _bit
        elif column[1] in (_TINY_BLOB, _MEDIUM_BLOB, _LONG_BLOB, _BLOB, _VAR_STRING, _STRING):
            converters[index] = _string
    return converters


def _bit(value: Any) -> Any:
    return int.from_bytes(value, "big") if isinstance(value, bytes | bytearray) else value


def _string(value: Any) -> Any:
    if isinstance(value, bytearray):
        return bytes(value)
    return ",".join(sorted(value)) if isinstance(value, set) else value
