"""The statement that Airflow's lineage collector gets for rows that were written, as OpenLineage reads it."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import HookLineageCollector
from airflow.providers.common.sql.hooks import lineage as sql_lineage
from openlineage.common.sql import parse

from airflow_provider_batch.warehouse.lineage import insert_for_lineage
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, land, row

#: dialects of OpenLineage's parser, with the quotation mark of names
DIALECTS = {"postgres": '"', "redshift": '"', "snowflake": '"', "generic": '"', "mysql": "`", "bigquery": "`"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> HookLineageCollector:
    """A real collector. Airflow uses one only if a plugin reads lineage."""
    collector = HookLineageCollector()  # type: ignore[no-untyped-call]  # Airflow has no types here
    monkeypatch.setattr(sql_lineage, "get_hook_lineage_collector", lambda: collector)
    return collector


def tables_written(collector: HookLineageCollector, dialect: str) -> list[str]:
    """Return the tables that OpenLineage finds in the statements. Fails for a statement that it cannot read."""
    tables = []
    for lineage in collector.collected_assets.extra:
        result = parse([lineage.value["sql"]], dialect=dialect)
        assert result is not None
        assert result.errors == [], lineage.value["sql"]
        tables += [table.name for table in result.out_tables]
    return tables


def dialect_of(warehouse: Warehouse) -> str:
    return {"postgres": "postgres", "mysql": "mysql"}.get(warehouse.hook.conn_type, "generic")


def test_openlineage_finds_the_results_table_of_a_landing(
    warehouse: Warehouse, collector: HookLineageCollector
) -> None:
    land(warehouse, [row("T-1")])
    assert tables_written(collector, dialect_of(warehouse)) == ["results"]


def test_openlineage_finds_the_tables_of_a_report(warehouse: Warehouse, collector: HookLineageCollector) -> None:
    tables = ReplacedTables(warehouse.hook, {"report": COLUMNS})
    tables.prepare()
    tables.apply([Replacement("report", {"custom_id": "T-1"}, [row("T-1")])])
    tables.upsert("report", [], [row("T-1", "y")])
    # the collector keeps one of two equal statements
    assert tables_written(collector, dialect_of(warehouse)) == ["report"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_openlineage_reads_the_statement_in_every_dialect(dialect: str) -> None:
    mark = DIALECTS[dialect]
    names = [f"{mark}{name}{mark}" for name in ("custom_id", "a column")]
    result = parse([insert_for_lineage(f"{mark}shop{mark}.{mark}answers{mark}", names)], dialect=dialect)
    assert result is not None
    assert (result.errors, [table.qualified_name for table in result.out_tables]) == ([], ["shop.answers"])
