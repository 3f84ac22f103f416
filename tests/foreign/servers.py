"""Install and run servers of other projects that speak OpenAI's Batch API.

Each class says how one package is installed, started and addressed. Every Python server gets its own virtual
environment, and every Node server its own prefix, so that their dependencies cannot clash with Airflow's.
"""

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from airflow_provider_batch.demo.standalone import free_port

#: maximum time in seconds for one installation, and for the start and the end of a server
_INSTALL_TIMEOUT, _START_TIMEOUT, _STOP_TIMEOUT = 1200, 180, 20


class NotRunError(Exception):
    """Raised if a server cannot be installed or started on this machine. The message says why."""


class Server(ABC):
    """A foreign server in a subprocess. As a context manager it runs for the duration of the block.

    :param cache: folder for installed packages, which later runs use again.
    :param state: folder for the server's files and its log, `server.log`.
    :param flags: further arguments of its command, such as those that inject faults.
    :param upstream: the server that answers its requests, for a server that has no models of its own.
    """

    package: ClassVar[str]
    #: key that the server accepts
    key: ClassVar[str] = "any"
    #: whether it stores files and batches itself
    stores: ClassVar[bool] = True
    #: path that answers 200 when the server is ready
    ready: ClassVar[str] = "/v1/models"

    def __init__(self, cache: Path, state: Path, flags: tuple[str, ...] = (), upstream: Server | None = None) -> None:
        self.state, self.flags, self.upstream = state, flags, upstream
        self.folder = cache / self.package.partition("[")[0].replace("/", "+")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """Address for OpenAI's clients."""
        return f"{self.url}/v1"

    @property
    def model(self) -> str:
        """Model of the requests."""
        return self.upstream.model if self.upstream else "gpt-4o"

    @property
    def _upstream_parameters(self) -> dict[str, str]:
        assert self.upstream, f"{self.package} needs an upstream server."
        return {"base_url": self.upstream.base_url, "api_key": self.upstream.key}

    @abstractmethod
    def install(self) -> None:
        """Install the package unless the cache has it."""

    @abstractmethod
    def version(self) -> str:
        """Return the version of the installed package."""

    @abstractmethod
    def command(self) -> list[str]:
        """Write the server's configuration and return the command that runs it."""

    def environment(self) -> dict[str, str]:
        """Return environment variables that the server needs besides those of this process."""
        return {}

    def stop_faults(self) -> None:  # noqa: B027  # most servers need nothing here
        """Let later requests succeed, so that the check after a job can read what the server has."""

    def __enter__(self) -> Self:
        self.install()
        self.state.mkdir(parents=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))},
            "HOME": str(self.state),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **self.environment(),
        }
        with open(self.state / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.state,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise NotRunError(f"{self.package} exited with code {process.returncode}.\n{self._log_tail()}")
            # With faults, the first answers may be errors. Any answer but 404 means that the routes are there.
            try:
                self.call("GET", self.ready)
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    return
            except (OSError, ValueError):
                pass
            else:
                return
            time.sleep(0.2)
        raise NotRunError(f"{self.package} did not respond within {_START_TIMEOUT} s.\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join((self.state / "server.log").read_text("utf-8", errors="replace").splitlines()[-20:])

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT)
            return
        process.kill()
        process.wait()

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Send a request to the server and return the JSON of the answer, or None if it has none."""
        request = urllib.request.Request(self.url + path, body, {"Authorization": f"Bearer {self.key}"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as response:
            content = response.read()
        return json.loads(content) if content else None


class PythonServer(Server):
    """A server from PyPI."""

    #: oldest Python that the package supports
    python: ClassVar[tuple[int, int]] = (3, 11)
    #: further packages that it needs
    requirements: ClassVar[tuple[str, ...]] = ()

    @property
    def bin(self) -> Path:
        """Folder of the commands of the virtual environment."""
        return self.folder / "bin"

    def install(self) -> None:
        """Create the virtual environment and install the package."""
        if (self.folder / "installed").exists():
            return
        _run([_find_python(self.python), "-m", "venv", "--clear", str(self.folder)])
        pip = [str(self.bin / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        _run([*pip, self.package, *self.requirements])
        (self.folder / "installed").touch()

    def version(self) -> str:
        """Return the version that the package's metadata gives."""
        code = f"import importlib.metadata as m; print(m.version({self.package.partition('[')[0]!r}))"
        return _run([str(self.bin / "python"), "-c", code]).strip()


class Aimock(Server):
    """Canned answers, and faults before any request. A batch moves on when it is retrieved, not when it is listed."""

    package = "@copilotkit/aimock"

    @property
    def _module(self) -> Path:
        return self.folder / "node_modules" / self.package

    def install(self) -> None:
        """Install the package with npm."""
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise NotRunError("aimock needs Node 20 or later and npm, which are not installed.")
        if not self._module.exists():
            _run(["npm", "install", "--silent", "--prefix", str(self.folder), self.package])

    def version(self) -> str:
        """Return the version in its package.json."""
        return str(json.loads((self._module / "package.json").read_text())["version"])

    def command(self) -> list[str]:
        """Answer every synchronous request, which the canary needs; batches have answers of their own."""
        fixtures = self.state / "fixtures.json"
        fixtures.write_text(json.dumps({"fixtures": [{"match": {}, "response": {"content": "Mock answer"}}]}))
        return [
            *("node", str(self._module / "dist" / "cli.js"), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--fixtures", str(fixtures), *self.flags),
        ]

    def stop_faults(self) -> None:
        """Remove the faults of this run."""
        self.call("POST", "/__aimock/chaos", b"{}")  # DELETE would restore those of the command line


class Llmock(PythonServer):
    """Echoes the prompt, and can answer any request with an error. It splits input files at Unicode line ends."""

    package = "llmock"
    ready = "/health"

    def command(self) -> list[str]:
        """Echo the prompts, so that each answer shows which row it belongs to."""
        return [
            *(str(self.bin / "llmock"), "serve", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--response-style", "echo", *self.flags),
        ]


class Ogx(PythonServer):
    """OGX, the successor of Llama Stack: a batch engine that sends each line to an upstream server itself."""

    package = "ogx"
    python = (3, 12)

    @property
    def model(self) -> str:
        """Name of the upstream server's model here."""
        return f"upstream/{super().model}"

    def environment(self) -> dict[str, str]:
        """Send no telemetry."""
        return {"OTEL_SDK_DISABLED": "true"}

    def command(self) -> list[str]:
        """Serve files and batches from SQLite."""
        kv, sql = "kv_default", "sql_default"
        stores = {"metadata": kv, "inference": sql, "conversations": sql, "prompts": sql}
        config = {
            "version": 2,
            "distro_name": "foreign",
            "apis": ["batches", "files", "inference"],
            "providers": {
                "inference": [
                    {
                        "provider_id": "upstream",
                        "provider_type": "remote::openai",
                        "config": self._upstream_parameters,
                    }
                ],
                "files": [
                    {
                        "provider_id": "files",
                        "provider_type": "inline::localfs",
                        "config": {
                            "storage_dir": str(self.state / "files"),
                            "metadata_store": {"table_name": "files", "backend": sql},
                        },
                    }
                ],
                "batches": [
                    {
                        "provider_id": "reference",
                        "provider_type": "inline::reference",
                        "config": {"sqlstore": {"table_name": "batches", "backend": sql}},
                    }
                ],
            },
            "storage": {
                "backends": {
                    kv: {"type": "kv_sqlite", "db_path": str(self.state / "kv.db")},
                    sql: {"type": "sql_sqlite", "db_path": str(self.state / "sql.db")},
                },
                "stores": {
                    name: {"backend": backend, "namespace" if backend == kv else "table_name": name}
                    for name, backend in stores.items()
                },
            },
            "server": {"host": "127.0.0.1", "port": self.port},
        }
        path = self.state / "config.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return [str(self.bin / "ogx"), "run", str(path), "--insecure", *self.flags]


class LiteLLM(PythonServer):
    """The LiteLLM proxy without a database: it passes files and batches on to an upstream server.

    The callback of the page about LiteLLM keeps it from repeating create calls.
    """

    package = "litellm[proxy]"
    #: without it, every error of the upstream server arrives as 500
    requirements = ("prisma",)
    key = "sk-foreign"
    stores = False
    ready = "/health/liveliness"

    def environment(self) -> dict[str, str]:
        """Use the price list in the package instead of downloading one."""
        return {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}

    def command(self) -> list[str]:
        """Send the files, batches and synchronous requests of this model to the upstream server."""
        upstream = self._upstream_parameters
        upstream["api_base"] = upstream.pop("base_url")
        config = {
            "model_list": [{"model_name": self.model, "litellm_params": {"model": f"openai/{self.model}", **upstream}}],
            "files_settings": [{"custom_llm_provider": "openai", **upstream}],
            "litellm_settings": {"callbacks": "no_retries.no_retries"},
            "general_settings": {"master_key": self.key},
        }
        page = (Path(__file__).parents[2] / "docs" / "how-to" / "litellm.md").read_text("utf-8")
        (self.state / "no_retries.py").write_text(page.partition("```python\n")[2].partition("```")[0])
        path = self.state / "config.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return [
            *(str(self.bin / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(self.port)),
            *("--telemetry", "False", *self.flags),
        ]


class LocalBatches(Server):
    """The local batch server of this package, to see what a gateway changes on the way to it."""

    package = "airflow-provider-batch"

    def install(self) -> None:
        """Nothing: the package is this repository."""

    def version(self) -> str:
        """Return the version of the package."""
        return importlib.metadata.version(self.package)

    def environment(self) -> dict[str, str]:
        """Let the server import this repository."""
        return {"PYTHONPATH": str(Path(__file__).parents[2])}

    def command(self) -> list[str]:
        """Let batches take no time."""
        return [
            *(sys.executable, "-m", "airflow_provider_batch.local", "--port", str(self.port)),
            *("--state", str(self.state / "batches"), "--api-key", self.key),
            *("--validating", "0", "--in-progress", "0", "--finalizing", "0", *self.flags),
        ]


def _run(command: list[str]) -> str:
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"{' '.join(command)} took more than {_INSTALL_TIMEOUT} s.") from error
    if process.returncode:
        raise NotRunError(f"{' '.join(command)} failed:\n{(process.stdout + process.stderr)[-2000:]}")
    return process.stdout


def _find_python(oldest: tuple[int, int]) -> str:
    """Return a Python of at least this version: the running one, one on the PATH, or one of pyenv."""
    if sys.version_info[:2] >= oldest:
        return sys.executable
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    names = [f"python3.{minor}" for minor in range(oldest[1], oldest[1] + 4)]
    candidates = [shutil.which(name) for name in names]
    candidates += sorted(glob.glob(f"{root}/versions/{oldest[0]}.*/bin/python3"))
    check = f"import sys; sys.exit(sys.version_info[:2] < {oldest})"
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False, timeout=30).returncode == 0:
            return candidate
    raise NotRunError(f"No Python {oldest[0]}.{oldest[1]} or later was found.")
