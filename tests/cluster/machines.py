"""The machines of the cluster: each has a name and folders of its own, and runs one part of Airflow."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.processes import Program

#: variable with the name of the machine
NAME_VARIABLE = "CLUSTER_MACHINE"


def machine_name() -> str:
    """Return the name of the machine that this process runs on. Airflow calls this for its host name."""
    return os.environ[NAME_VARIABLE]


class Machine(Program):
    """A part of Airflow with an AIRFLOW_HOME, a HOME and a TMPDIR that no other machine has.

    :param folder: parent of the folder of the machine.
    :param arguments: of the command `airflow`.
    :param settings: environment that all machines have in common.
    """

    def __init__(self, name: str, folder: Path, arguments: list[str], settings: Mapping[str, str]) -> None:
        self.folder = folder / name
        environment = {
            **settings,
            NAME_VARIABLE: name,
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        command = [sys.executable, "-m", "airflow", *arguments]
        super().__init__(name, command, environment, folder / f"{name}.log")
        self.environment = environment

    def start(self) -> None:
        """Start the part on an empty disk, as on a new machine. The disk of its predecessor is kept elsewhere."""
        if self.folder.exists():
            number = len(list(self.folder.parent.glob(f"{self.name}.lost-*")))
            self.folder.rename(self.folder.with_name(f"{self.name}.lost-{number}"))
        for name in ("airflow", "home", "tmp"):
            (self.folder / name).mkdir(parents=True)
        super().start()


def connection(conn_type: str, **fields: Any) -> str:
    """Return the value of an `AIRFLOW_CONN_...` variable."""
    return json.dumps({"conn_type": conn_type, **fields})
