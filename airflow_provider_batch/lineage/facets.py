"""The facets of a job's tasks, built from its summary and the columns of its results table alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attr
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    DatasetFacet,
    RunFacet,
    column_lineage_dataset,
    dataset_version_dataset,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from airflow_provider_batch import __version__
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import Landed
from airflow_provider_batch.core.lifecycle.summary import JobSummary
from airflow_provider_batch.core.schema.columns import Column

#: key of the run facet of a job
JOB_FACET = "openaiBatch_job"
PRODUCER = f"urn:airflow-provider-batch:{__version__}"
#: version of the schema in OpenAIBatchJobRunFacet.json; a change of the facet changes both
SCHEMA_VERSION = "1-0-0"

#: a column of a dataset
Field = column_lineage_dataset.InputField


@attr.define(kw_only=True)
class OpenAIBatchJobRunFacet(RunFacet):
    """A job: its rows, tokens and cost. None is unknown, never 0. `OpenAIBatchJobRunFacet.json` is its schema."""

    jobUid: str  # noqa: N815
    generation: int
    phase: str
    endpoint: str
    connection: str
    models: list[str]
    #: numbers of rows, and of batches
    requests: int
    sent: int
    duplicates: int
    reused: int
    invalid: int
    batches: int
    outcomes: dict[str, int]
    tokens: dict[str, int]
    #: US dollars
    estimateLowUsd: float | None = None  # noqa: N815
    estimateHighUsd: float | None = None  # noqa: N815
    costUsd: float | None = None  # noqa: N815
    standardCostUsd: float | None = None  # noqa: N815
    #: numbers of requests
    retried: int = 0
    paidTwice: int = 0  # noqa: N815

    @staticmethod
    def _get_schema() -> str:
        return f"urn:airflow-provider-batch:openlineage:{SCHEMA_VERSION}:OpenAIBatchJobRunFacet.json"


def job_facet(summary: JobSummary, manifest: Manifest, landed: Landed | None) -> OpenAIBatchJobRunFacet:
    """Return the facet of a job.

    :param landed: the landing that the task carried out; None for a task that does not land.
    """
    return OpenAIBatchJobRunFacet(
        jobUid=summary.job_uid,
        generation=summary.generation,
        phase=str(summary.phase),
        endpoint=summary.endpoint,
        connection=summary.connection,
        models=manifest.models,
        requests=summary.requests,
        sent=summary.sent,
        duplicates=summary.duplicates,
        reused=summary.reused,
        invalid=summary.invalid,
        batches=summary.batches,
        outcomes=landed.outcomes if landed else summary.progress,
        tokens=landed.tokens if landed else {},
        estimateLowUsd=summary.estimate.low_usd,
        estimateHighUsd=summary.estimate.high_usd,
        costUsd=_usd(landed.cost_usd) if landed else None,
        standardCostUsd=_usd(landed.standard_cost_usd) if landed else None,
        retried=landed.retried if landed else 0,
        paidTwice=summary.paid_twice,
        producer=PRODUCER,
    )


def _usd(amount: str | None) -> float | None:
    return None if amount is None else float(amount)


def job_version(manifest: Manifest) -> dict[str, DatasetFacet]:
    """Return the facets of a job's folder: the job and its generation, as the version of the dataset."""
    version = f"{manifest.job_uid}.{manifest.generation}"
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version, producer=PRODUCER)}


def schema_facet(columns: Iterable[tuple[str, str]]) -> schema_dataset.SchemaDatasetFacet:
    """Return the schema of a dataset. `columns` are names and types."""
    fields = [schema_dataset.SchemaDatasetFacetFields(name, type_) for name, type_ in columns]
    return schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER)


def input_dataset(
    namespace: str, name: str, facets: Mapping[str, DatasetFacet] | None = None, *, rows: int | None = None
) -> InputDataset:
    """Return a dataset that was read. `rows` is the number of rows, if it is known."""
    statistics = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=rows, producer=PRODUCER)
    return InputDataset(
        namespace,
        name,
        facets=dict(facets or {}),
        inputFacets={} if rows is None else {"inputStatistics": statistics},
    )


def output_dataset(
    namespace: str, name: str, facets: Mapping[str, DatasetFacet] | None = None, *, rows: int, size: int | None = None
) -> OutputDataset:
    """Return a dataset that was written, with the number of rows, and the size in bytes if it is known."""
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=rows, size=size, producer=PRODUCER
    )
    return OutputDataset(namespace, name, facets=dict(facets or {}), outputFacets={"outputStatistics": statistics})


def column_lineage(
    columns: Iterable[Column],
    manifest: Manifest,
    answer_columns: Iterable[str],
    sources: Mapping[str, Sequence[Field]],
) -> column_lineage_dataset.ColumnLineageDatasetFacet | None:
    """Return from which columns of the source the columns of the results come, or None if none of them is known.

    :param columns: all columns of the results.
    :param answer_columns: the names of those that an answer fills.
    :param sources: the columns of tables from which each column of the query comes.
    """
    origin, carried_names = manifest.origin, {column.name for column in manifest.carry}
    answer_names = {"output", *answer_columns}
    description = f"Answered by {', '.join(manifest.models)}."
    fields: dict[str, column_lineage_dataset.Fields] = {}
    for column in columns:
        if column.name in carried_names:
            inputs = _fields([column.name], sources, "IDENTITY")
        elif column.name == "custom_id":
            inputs = _fields(origin.custom_id_columns, sources, "TRANSFORMATION")
        elif column.name in answer_names:
            inputs = _fields(origin.request_columns, sources, "TRANSFORMATION", description)
        else:
            continue
        if inputs:
            fields[column.name] = column_lineage_dataset.Fields(inputs)
    return column_lineage_dataset.ColumnLineageDatasetFacet(fields, producer=PRODUCER) if fields else None


def _fields(
    names: Iterable[str], sources: Mapping[str, Sequence[Field]], subtype: str, description: str | None = None
) -> list[Field]:
    transformation = column_lineage_dataset.Transformation("DIRECT", subtype, description)
    return [
        Field(field.namespace, field.name, field.field, [transformation])
        for name in names
        for field in sources.get(name.lower(), [])
    ]
