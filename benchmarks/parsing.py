"""CPU time of parsing a DAG file, as Airflow's dag-processor spends it again and again for every file.

    python -m benchmarks.parsing [--json FILE] [--runs 9]

The process imports `airflow.sdk` and the dag-processor's `DagBag`, and forks for each file and run. A DAG file with one
task of Airflow itself is the anchor; the figures are what other files cost on top of it. Python's compiled modules are
written in a first round, which is not counted.

`python -m benchmarks.triggers --only first` measures the same for the first trigger of a triggerer.
"""

from __future__ import annotations

import argparse
import gc
import os
import struct
import sys
import time
from pathlib import Path

from benchmarks.airflow_home import temporary_airflow_home
from benchmarks.measure import Figure, report

_HEAD = "from airflow.sdk import DAG, task\n"
#: file that the others are compared with
PLAIN = "a task of Airflow itself"
FILES = {
    PLAIN: f"""{_HEAD}
with DAG("plain", schedule=None):
    @task
    def plain(): ...
    plain()
""",
    "batch_job": f"""{_HEAD}
from airflow_provider_batch.task_groups import batch_job

with DAG("ours", schedule=None):
    @task
    def plain(): ...
    plain() >> batch_job(
        sql="SELECT id, text FROM tickets",
        custom_id="{{{{ row.id }}}}",
        model="gpt-4o-mini",
        prompt="{{{{ row.text }}}}",
        table="labels",
    )
""",
    "common.ai's LLMBatchOperator": f"""{_HEAD}
from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator

with DAG("theirs", schedule=None):
    @task
    def plain(): ...
    plain() >> LLMBatchOperator(
        task_id="batch", llm_conn_id="pydanticai_default", requests=["a"], result_path="/tmp/results"
    )
""",
    "the OpenAI client alone": f"""{_HEAD}
import openai

with DAG("client", schedule=None):
    @task
    def plain(): ...
    plain()
""",
}


def measure_parse(file: Path) -> float:
    """Return the CPU seconds of parsing a file in a process of its own."""
    from airflow.dag_processing.dagbag import DagBag

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        start = time.process_time()
        errors = DagBag(str(file)).import_errors
        seconds = time.process_time() - start
        if not errors:
            os.write(writer, struct.pack("d", seconds))
        os._exit(1 if errors else 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as source:
        answer = source.read()
    os.waitpid(pid, 0)
    if not answer:
        raise RuntimeError(f"{file} cannot be parsed")
    parse_seconds: float = struct.unpack("d", answer)[0]
    return parse_seconds


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    sys.dont_write_bytecode = False  # some containers set it, and then every run would compile our modules
    with temporary_airflow_home() as home:
        import airflow.sdk  # noqa: F401

        paths = {}
        for number, (name, text) in enumerate(FILES.items()):
            paths[name] = home / f"dag_{number}.py"
            paths[name].write_text(text)
            measure_parse(paths[name])
        figures = {
            name: Figure(f"{name}: CPU over {PLAIN}", "ms", anchor="the OpenAI client alone")
            for name in FILES
            if name != PLAIN
        }
        figures["batch_job"].max_median = 150.0
        gc.freeze()  # as the dag-processor does before it forks
        for _ in range(args.runs):
            seconds = {name: measure_parse(path) for name, path in paths.items()}
            extra = {name: 1000 * (value - seconds[PLAIN]) for name, value in seconds.items()}
            for name, figure in figures.items():
                figure.add(extra[name], extra["the OpenAI client alone"])
    report("Parsing a DAG file", list(figures.values()), args.json)


if __name__ == "__main__":
    main()
