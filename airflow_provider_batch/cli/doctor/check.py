"""The result of a check, and the runner that makes all checks although some fail or hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

import msgspec


class Status(StrEnum):
    """What a check says."""

    OK = "ok"
    #: jobs run, but something is odd or slow, or may fail later
    WARNING = "warning"
    #: jobs cannot run
    PROBLEM = "problem"
    #: cannot be checked from here
    UNKNOWN = "unknown"


class Check(msgspec.Struct, frozen=True):
    """One line of the output."""

    #: what was checked, in a word or two
    name: str
    status: Status
    #: what was found out
    message: str
    #: what to do about it; empty if there is nothing to do
    fix: str = ""


#: yields the results of a few checks, in the order in which they depend on each other
Group = Callable[[], Iterator[Check]]


def run_groups(groups: Sequence[tuple[str, Group]], seconds: float, hide: Callable[[str], str]) -> list[Check]:
    """Run groups of checks one after another and return all results.

    A group that raises an error or does not end in time has one more result, which reports that. Nothing is raised. The
    groups do not run concurrently, because threads that import parts of Airflow can then wait for each other forever.

    :param seconds: time for each group. A database or a disk may hang for much longer.
    :param hide: removes secrets from a text.
    """
    checks = []
    for name, group in groups:
        run = _GroupRun(name, group)
        run.start()
        run.join(seconds)
        checks += run.results(seconds)
    return [msgspec.structs.replace(check, message=hide(check.message), fix=hide(check.fix)) for check in checks]


class _GroupRun(threading.Thread):
    # a daemon, so that a call that hangs does not keep the process from ending
    def __init__(self, name: str, group: Group) -> None:
        super().__init__(name=name, daemon=True)
        self._group = group
        self._checks: list[Check] = []

    def run(self) -> None:
        try:
            for check in self._group():
                self._checks.append(check)
        except Exception as error:  # noqa: BLE001 - whatever a database, a disk or Airflow raises is the result
            message = f"The check failed: {type(error).__name__}: {error}"
            self._checks.append(Check(self.name, Status.PROBLEM, message))

    def results(self, seconds: float) -> list[Check]:
        checks = list(self._checks)
        if self.is_alive():
            message = f"No answer within {seconds:.0f} seconds."
            fix = "Check the address, and whether a firewall or a proxy is between here and there."
            checks.append(Check(self.name, Status.PROBLEM, message, fix))
        return checks
