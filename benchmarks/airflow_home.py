"""A temporary Airflow home, so that a benchmark never touches another Airflow's configuration or connections."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_airflow_home() -> Iterator[Path]:
    """Set AIRFLOW_HOME to a new folder for all processes started within the block.

    Call it before this process imports Airflow, which reads its home at import.
    """
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        yield Path(home)
