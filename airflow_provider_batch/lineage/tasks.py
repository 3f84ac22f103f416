"""The datasets that the tasks of a job read and write.

    source tables ─> submit ─> job ─> land ─> results table
                └──────────────────────┘

The job is a dataset, too: the folder of the submit task in staging, with the job_uid as its version. Thus a graph of
datasets and tasks, as Marquez and DataHub draw it, connects submit and land. All runs of a task share this dataset, so
the graph does not grow with every run. Land also has the source tables as inputs, because Marquez resolves the source
of a column among the inputs of the run that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.openlineage.extractors.base import OperatorLineage

from airflow_provider_batch.core.ledger.job import Origin
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import Landed
from airflow_provider_batch.core.lifecycle.summary import summarize
from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.lineage.database import Database, file_name
from airflow_provider_batch.lineage.facets import (
    JOB_FACET,
    Field,
    column_lineage,
    input_dataset,
    job_facet,
    job_version,
    output_dataset,
    schema_facet,
)

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import DatasetFacet


def submit_lineage(origin: Origin, ledger: Ledger | None) -> OperatorLineage[Any, Any]:
    """Return the lineage of a submit task.

    :param origin: where the task reads rows.
    :param ledger: the job, or None if the task failed before the seal or only made a preview.
    """
    if ledger is None:
        lineage, _ = _source(origin, None)
        return lineage
    manifest = ledger.manifest
    lineage, _ = _source(origin, manifest.requests)
    namespace, name = _job_name(ledger)
    size = sum(shard.bytes for shard in manifest.shards)
    lineage.outputs = [output_dataset(namespace, name, job_version(manifest), rows=manifest.requests, size=size)]
    lineage.run_facets[JOB_FACET] = job_facet(summarize(ledger), manifest, None)
    return lineage


def landing_lineage(
    ledger: Ledger, conn_id: str, columns: Sequence[Column], answer_columns: Sequence[str], landed: Landed | None
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task that lands a job.

    :param conn_id: connection of the results table.
    :param columns: the columns of the results.
    :param answer_columns: the names of those that `columns=` fills from the answer.
    :param landed: what the task landed, or None if it failed before.
    """
    manifest = ledger.manifest
    lineage, sources = _source(manifest.origin, manifest.requests)
    lineage.inputs.append(input_dataset(*_job_name(ledger), job_version(manifest), rows=manifest.requests))
    lineage.run_facets[JOB_FACET] = job_facet(summarize(ledger), manifest, landed)
    if landed is None:
        return lineage
    facet = column_lineage(columns, manifest, answer_columns, sources)
    facets: dict[str, DatasetFacet] = {} if facet is None else {"columnLineage": facet}
    rows = sum(landed.outcomes.values())
    if landed.table is not None:
        lineage.outputs.append(_results_table(conn_id, landed.table, columns, facets, rows))
    if landed.file is not None:
        facets = {"schema": schema_facet((column.name, str(column.type)) for column in columns), **facets}
        lineage.outputs.append(output_dataset(*file_name(landed.file), facets, rows=rows))
    return lineage


def _results_table(
    conn_id: str, name: str, columns: Sequence[Column], facets: Mapping[str, DatasetFacet], rows: int
) -> OutputDataset:
    database = Database(conn_id)
    table = database.table(name)
    # the table may have more columns than ours
    schema = (table.facets or {}).get("schema") or schema_facet(
        (column.name, database.dialect.type_of(column)) for column in columns
    )
    return output_dataset(table.namespace, table.name, {"schema": schema, **facets}, rows=rows)


def _source(origin: Origin, rows: int | None) -> tuple[OperatorLineage[Any, Any], Mapping[str, list[Field]]]:
    """Return the lineage of reading the rows, and the columns of tables from which each column of the rows comes."""
    if not origin.sql:
        files: list[InputDataset] = [input_dataset(*file_name(address)) for address in origin.addresses]
        return OperatorLineage(inputs=_with_rows(files, rows)), {}
    database = Database(origin.conn_id)
    lineage = database.lineage_of(origin.sql)
    sources = database.sources_of(origin.sql, lineage.inputs)
    tables = [input_dataset(table.namespace, table.name, table.facets) for table in lineage.inputs]
    lineage.inputs = _with_rows(tables, rows)
    return lineage, sources


def _with_rows(datasets: list[InputDataset], rows: int | None) -> list[InputDataset]:
    """Return the datasets, with the number of rows that were read if there is only one of them."""
    if len(datasets) != 1:
        return datasets
    (dataset,) = datasets
    return [input_dataset(dataset.namespace, dataset.name, dataset.facets, rows=rows)]


def _job_name(ledger: Ledger) -> tuple[str, str]:
    namespace, name = file_name(ledger.folder.uri)
    return namespace, name.rpartition("/")[0]
