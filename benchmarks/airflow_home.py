"""An Airflow of the benchmarks' own: nobody else's home, configuration or connections."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def airflow_home() -> Iterator[Path]:
    """A new AIRFLOW_HOME for the processes started within; Airflow must not have been imported here before."""
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
