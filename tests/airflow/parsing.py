"""Parse DAG files as Airflow's dag-processor does: each in a process that is forked from one that has imported Airflow.

    python -m tests.airflow.parsing FILE ...

Prints the import errors of each file as JSON. If this provider imports a package that only a running task needs, that
is an error too, and it names the module that imports it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any

#: packages that take long to import, and that no argument is checked with
FORBIDDEN = frozenset(
    {
        "airflow.providers.common.sql.hooks.sql",
        "airflow.providers.openai",
        "bpe_openai",
        "duckdb",
        "genai_prices",
        "httpx2",
        "matplotlib",
        "numpy",
        "openai",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "sqlglot",
        "sqlparse",
    }
)


class ForbiddenImportError(Exception):
    """Raised instead of an ImportError, which the importing module might handle."""


class ForbiddingFinder(MetaPathFinder):
    """Raises an error when a module of this provider imports a forbidden package, also indirectly."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Leave every other import to the next finder."""
        frame: Any = sys._getframe(1) if fullname in FORBIDDEN else None
        while frame is not None:
            importer = frame.f_globals.get("__name__", "")
            if importer.startswith("airflow_provider_batch."):
                raise ForbiddenImportError(f"{importer} imports {fullname} (line {frame.f_lineno})")
            frame = frame.f_back


def parse(file: str) -> dict[str, str]:
    """Parse one file and return its errors."""
    from airflow.dag_processing.dagbag import DagBag

    sys.meta_path.insert(0, ForbiddingFinder())
    return DagBag(file, safe_mode=False).import_errors


def parse_in_fork(file: str) -> dict[str, str]:
    """Parse one file in a process of its own, and return its errors."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(writer, "w") as output:
            json.dump(parse(file), output)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as source:
        answer = source.read()
    os.waitpid(pid, 0)
    errors: dict[str, str] = json.loads(answer) if answer else {file: "The process that parsed the file has crashed."}
    return errors


def main(files: Sequence[str]) -> None:
    """Parse files and print their errors."""
    import airflow.dag_processing.dagbag
    import airflow.sdk  # noqa: F401

    json.dump({file: parse_in_fork(file) for file in files}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
