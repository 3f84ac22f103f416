"""The statement that Airflow's lineage collector gets for rows that were written."""

from __future__ import annotations

from collections.abc import Sequence


def insert_for_lineage(table: str, names: Sequence[str]) -> str:
    """Return the INSERT of one row that stands for a landing. `table` and `names` are SQL.

    Its placeholders are those that OpenLineage's parser reads in every dialect. It cannot read `%s`, or `?` in
    PostgreSQL, and then reports an error instead of the table.
    """
    marks = ", ".join(f":{number}" for number in range(1, len(names) + 1))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"
