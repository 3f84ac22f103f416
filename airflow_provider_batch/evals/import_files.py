"""The files of an import, on a disk or in an object store, through Airflow's `ObjectStoragePath`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath

from airflow_provider_batch.evals.imports.reading import MAX_BYTES
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED, check_address, check_reference
from airflow_provider_batch.exceptions import FileStoreError, InputError


class StoredFiles:
    """A file to import, and the files that it names.

    :param address: an absolute path, or a URL such as `s3://aws_default@bucket/evals/promptfooconfig.yaml`.
    :raises InputError: if Airflow cannot open addresses of this kind.
    """

    def __init__(self, address: str) -> None:
        check_address(address)
        self.address = address
        try:
            self._path = ObjectStoragePath(address)
            self._filesystem: Any = self._path.fs
        except (ValueError, ImportError) as error:
            raise InputError(
                f"This Airflow installation cannot open {address!r}: {error}. Install the provider of its object "
                f"store, such as apache-airflow-providers-amazon[s3fs] for s3://. {NOTHING_IMPORTED}"
            ) from error
        except AirflowException as error:  # such as a connection that does not exist
            raise InputError(f"Cannot open {address!r}: {error}. {NOTHING_IMPORTED}") from error

    def read(self, path: str | None = None, folders: Sequence[str] = ("",)) -> bytes:
        """See `ImportFiles`. Raises FileStoreError if the store does not answer; a retry may help."""
        name = str(self._path.path)
        if path is None:
            candidates = [name]
        else:
            check_reference(path, self.address)
            parent = os.path.dirname(name)
            candidates = [os.path.normpath(os.path.join(parent, folder, path)) for folder in folders]
        for candidate in candidates:
            data = self._read(candidate)
            if data is not None:
                return data
        if path is None:
            raise InputError(f"There is no file {self.address}. {NOTHING_IMPORTED}")
        raise InputError(
            f"{self.address} names the file {path}, which does not exist: {' and '.join(candidates)}. "
            f"{NOTHING_IMPORTED}"
        )

    def _read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        try:
            self._filesystem.invalidate_cache()
            with self._filesystem.open(name, "rb") as file:
                # one byte more, so that the reader sees that the file is too large
                return bytes(file.read(MAX_BYTES + 1))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except IsADirectoryError:
            raise InputError(f"{name} is a folder. Name a file. {NOTHING_IMPORTED}") from None
        except Exception as error:  # each store has errors of its own
            raise FileStoreError(
                f"Cannot read {name}: {type(error).__name__}: {str(error).rstrip('.')}. {NOTHING_IMPORTED}"
            ) from error
