"""The common part of folders on a local disk and in an object store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_batch.exceptions import StagingError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

log = logging.getLogger(__name__)


class PathFolder:
    """Base class of both kinds of folders, for operations that work the same through their path."""

    path: Path | ObjectStoragePath

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        try:
            content: bytes = (self.path / name).read_bytes()
            return content
        except FileNotFoundError:
            return None
        except OSError as error:
            raise staging_error("read", self.path / name, error) from error

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of these files, or None for one that does not exist."""
        return [self.read(name) for name in names]

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the files in a subfolder."""
        return self._entries(subfolder, folders=False)

    def folders(self, subfolder: str) -> list[str]:
        """Return the names of the folders in a subfolder."""
        return self._entries(subfolder, folders=True)

    def remove(self, name: str) -> None:
        """Delete a file that is no longer needed. If the store refuses, log a warning."""
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            # permissions that let workers write but not delete are common, and nothing depends on this file now
            log.warning(
                "Could not remove %s from staging, although it is no longer needed: %s", self.path / name, error
            )

    def _entries(self, subfolder: str, *, folders: bool) -> list[str]:
        raise NotImplementedError


def staging_error(verb: str, path: object, error: OSError) -> StagingError:
    """Return the error for an operation on a path that failed."""
    return StagingError(
        f"Staging: cannot {verb} {path}: {error.strerror or error}. What was sealed or collected before is kept. "
        "Check the path and its permissions ([openai_batch] staging or staging=), then clear the task."
    )
