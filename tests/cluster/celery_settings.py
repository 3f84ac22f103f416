"""Settings of a Celery worker that imports what its tasks need once, instead of in each task.

Airflow forks a process for each task. The fork has the modules that the worker imported, and shares their memory.
"""

from __future__ import annotations

import importlib

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

for module in (
    "airflow.providers.amazon.aws.fs.s3",
    "airflow.providers.amazon.aws.hooks.base_aws",
    "airflow.providers.postgres.hooks.postgres",
    "airflow.sdk.execution_time.task_runner",
    "airflow_provider_batch.operators.batch",
    "airflow_provider_batch.sensors.batch",
    "airflow_provider_batch.task_groups",
    "airflow_provider_batch.worker.runner",
    "openai.resources.batches",
    "openai.resources.files",
    "s3fs",
):
    importlib.import_module(module)

CELERY_CONFIG = DEFAULT_CELERY_CONFIG
