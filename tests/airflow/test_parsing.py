"""Parsing a DAG file imports only what checking the arguments needs.

The dag-processor parses every file again and again, by default every 30 s, in a process of its own that has imported
nothing of this provider. What is imported then is paid for each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_batch.demo.home import dags_folder
from tests.test_public_surface import SURFACE

EXAMPLES = sorted(dags_folder().glob("[!_]*.py"))
#: public modules that DAG files do not import: the client itself, and the fixtures of tests
NOT_FOR_DAGS = {"airflow_provider_batch.hooks.batch", "airflow_provider_batch.testing"}
IMPORTS = {
    module.removeprefix("airflow_provider_batch."): f"from {module} import {', '.join(names)}\n"
    for module, names in SURFACE.items()
    if module not in NOT_FOR_DAGS
}
#: what Airflow imports in each of its processes
IMPORTS |= {
    "plugin": "from airflow_provider_batch.plugins.batch import BatchPlugin\n",
    "provider_info": "from airflow_provider_batch.get_provider_info import get_provider_info\n",
}
EVERYTHING = """
from airflow.sdk import DAG, task
from pydantic import BaseModel

from airflow_provider_batch.notifications import BatchJobNotifier
from airflow_provider_batch.presets import classify, embed
from airflow_provider_batch.task_groups import batch_job


class Label(BaseModel):
    category: str


with DAG("everything", schedule=None):
    batch_job.override(group_id="labels")(
        rows="s3://aws_default@bucket/*.parquet",
        custom_id="{{ row.id }}",
        model="my-model",
        prompt="{{ row.text }}",
        output_schema=Label,
        prices={"my-model": {"input": 1, "output": 2}},
        body={"temperature": 0},
        table="labels",
        approve_above_usd=5,
        notify=BatchJobNotifier(print),
    )
    batch_job.override(group_id="preset")(
        sql="SELECT 1", custom_id="{{ row.id }}", table="presets", **classify("{{ row.text }}", ["a", "b"])
    )
    batch_job.override(group_id="vectors")(
        sql="SELECT 1", custom_id="{{ row.id }}", table="vectors", **embed("{{ row.text }}")
    )

    @task.openai_batch(custom_id="{{ row.id }}", model="gpt-4o-mini", prompt="{{ row.text }}", table="answers")
    def documents():
        yield {"id": 1, "text": "a"}

    documents()
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory, airflow_home: Path) -> dict[str, dict[str, str]]:
    """Errors of every file of this module, all parsed from one process."""
    folder = tmp_path_factory.mktemp("files")
    for name, text in {**IMPORTS, "everything": EVERYTHING}.items():
        (folder / f"{name}.py").write_text(text)
    files = [*map(str, EXAMPLES), *map(str, folder.glob("*.py"))]
    process = subprocess.run(
        [sys.executable, "-m", "tests.airflow.parsing", *files], capture_output=True, text=True, timeout=500, check=True
    )
    errors_by_file: dict[str, dict[str, str]] = json.loads(process.stdout.splitlines()[-1])
    return {Path(file).stem: errors_by_file[file] for file in files}


@pytest.mark.parametrize("name", [*(file.stem for file in EXAMPLES), *IMPORTS, "everything"])
def test_parsing_imports_no_client_no_prices_and_no_driver(name: str, errors: dict[str, dict[str, str]]) -> None:
    assert errors[name] == {}
