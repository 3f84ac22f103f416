"""The metadata through which Airflow discovers the provider: modules, links, plugin and configuration.

Airflow loads this module while it starts, so it imports nothing else from the package.
"""

from __future__ import annotations

from typing import Any

DOCS = "https://airflow-provider-batch.readthedocs.io/en/latest/"


def get_provider_info() -> dict[str, Any]:
    """Return the metadata of the provider, in the shape of Airflow's `provider_info.schema.json`."""
    name = "OpenAI Batch"
    return {
        "package-name": "airflow-provider-batch",
        "name": name,
        "description": "Send warehouse rows through the OpenAI Batch API, and write every answer back to the "
        "warehouse under the key of its row.",
        "integrations": [
            {
                "integration-name": name,
                "external-doc-url": DOCS,
                "logo": f"{DOCS}_static/logo.svg",
                "how-to-guide": [
                    f"{DOCS}start/first-job.html",
                    f"{DOCS}how-to/writing-a-job.html",
                    f"{DOCS}dags/nightly_eval.html",
                    f"{DOCS}operations/jobs.html",
                ],
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
        "notifications": ["airflow_provider_batch.notifications.BatchJobNotifier"],
        "task-decorators": [
            {"name": "openai_batch", "class-name": "airflow_provider_batch.decorators.openai_batch_task"},
        ],
        "extra-links": [
            "airflow_provider_batch.links.batch.BatchJobLink",
            "airflow_provider_batch.links.batch.ProviderBatchesLink",
            "airflow_provider_batch.links.batch.EvalReportLink",
        ],
        "plugins": [
            {"name": "batch", "plugin-class": "airflow_provider_batch.plugins.batch.BatchPlugin"},
        ],
        "config": {
            "openai_batch": {
                "description": "Default settings of the OpenAI Batch provider (airflow-provider-batch).",
                "options": {
                    "staging": {
                        "description": "Where jobs are staged: sealed input files, ledgers and collected answers. "
                        "An absolute path, or an object store URI such as s3://my_aws_conn@bucket/batch. "
                        "If empty, jobs are staged in the folder batch_staging in AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/batch",
                        "default": "",
                    },
                    "allow_local_staging": {
                        "description": "Set this to True if staging is a local path that every worker mounts. "
                        "Otherwise, submit rejects a local path if the executor may run tasks on other machines.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                    "connection_budget": {
                        "description": "What all jobs of a connection may spend together, as JSON: US dollars and "
                        "hour, day, week or month (UTC). batch_budget in the extra of a connection takes precedence. "
                        "If empty, connections have no budget.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": '{"usd": 50, "per": "day"}',
                        "default": "",
                    },
                    "duckdb_memory_limit": {
                        "description": "Maximum memory of DuckDB in a task that reads or lands rows, such as 256MB. "
                        "What does not fit is written to disk. memory_limit in the extra of a connection takes "
                        "precedence. If empty, DuckDB's own default applies: 80 % of the machine's memory.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "1GB",
                        "default": "256MB",
                    },
                    "page_staging": {
                        "description": "Other places from which the page of the jobs in Airflow may read, separated "
                        "by commas: the values that tasks pass as staging=. Jobs in any other place, except that of "
                        "the option staging, are in the list, but their details are not shown.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/evals,/mnt/shared/batch",
                        "default": "",
                    },
                    "poll_interval": {
                        "description": "Maximum number of seconds between two checks of a running batch. This is the "
                        "default of BatchSensor's poke_interval.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "60",
                    },
                    "retention": {
                        "description": "How many days after its last event `airflow-batch jobs clean` keeps a job in "
                        "staging. Only that command removes jobs. This is the default of BatchSubmitOperator's "
                        "retention.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "30",
                    },
                    "row_retry_delay": {
                        "description": "Seconds before a row that failed for a transient reason is retried. "
                        "The delay doubles with each attempt. This is the default of BatchSensor's row_retry_delay.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "300",
                    },
                },
            }
        },
    }
