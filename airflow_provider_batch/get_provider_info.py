"""What Airflow asks of every provider: its modules, links, plugin and configuration.

Loaded by Airflow while it starts; so nothing is imported here.
"""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's self-description, in the shape of Airflow's `provider_info.schema.json`."""
    name = "OpenAI Batch"
    return {
        "package-name": "airflow-provider-batch",
        "name": name,
        "description": "Rows from a warehouse through the OpenAI Batch API, "
        "every answer back in the warehouse under its own key.",
        "integrations": [
            {
                "integration-name": name,
                "external-doc-url": "https://platform.openai.com/docs/guides/batch",
                "tags": ["ai", "openai", "llm", "batch", "embeddings", "evals"],
            }
        ],
        "operators": [
            {
                "integration-name": name,
                "python-modules": ["airflow_provider_batch.operators.batch", "airflow_provider_batch.operators.evals"],
            },
        ],
        "sensors": [
            {"integration-name": name, "python-modules": ["airflow_provider_batch.sensors.batch"]},
        ],
        "hooks": [
            {"integration-name": name, "python-modules": ["airflow_provider_batch.hooks.batch"]},
        ],
        "triggers": [
            {"integration-name": name, "python-modules": ["airflow_provider_batch.triggers.batch"]},
        ],
        "extra-links": [
            "airflow_provider_batch.links.batch.BatchJobLink",
            "airflow_provider_batch.links.batch.EvalReportLink",
        ],
        "plugins": [
            {"name": "batch", "plugin-class": "airflow_provider_batch.plugins.batch.BatchPlugin"},
        ],
        "config": {
            "openai_batch": {
                "description": "Defaults of the OpenAI Batch provider (airflow-provider-batch).",
                "options": {
                    "staging": {
                        "description": "Where jobs are staged: sealed input files, the ledger, collected answers. "
                        "A local path or an object store URI such as s3://my_aws_conn@bucket/batch. "
                        "Empty: a folder batch_staging in AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/batch",
                        "default": "",
                    },
                    "allow_local_staging": {
                        "description": "Set this if staging is a local path that every worker mounts. Otherwise a "
                        "local path is refused with executors that run tasks on other machines.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                    "poll_interval": {
                        "description": "Seconds between two looks at running batches (BatchSensor's poke_interval "
                        "where the DAG gives none).",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "60",
                    },
                    "retention": {
                        "description": "Days that `airflow-batch jobs clean` leaves a job in staging after its last "
                        "event (BatchSubmitOperator's retention where the DAG gives none). Nothing is removed by "
                        "itself.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "30",
                    },
                    "row_retry_delay": {
                        "description": "Seconds before a row that failed for a transient reason is retried. "
                        "Doubled with each attempt.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "300",
                    },
                },
            }
        },
    }
