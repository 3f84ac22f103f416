"""What a folder on a local disk and a folder in an object store have in common."""

from __future__ import annotations

import logging
from pathlib import Path

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_batch.exceptions import StagingError

log = logging.getLogger(__name__)


class PathFolder:
    """What both kinds of folders do alike, through the path they have."""

    path: Path | ObjectStoragePath

    def read(self, name: str) -> bytes | None:
        """Return a whole file, None if it does not exist."""
        try:
            found: bytes = (self.path / name).read_bytes()
            return found
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot("read", self.path / name, error) from error

    def names(self, subfolder: str) -> list[str]:
        """Return the names of the files in a folder."""
        return self._entries(subfolder, folders=False)

    def folders(self, subfolder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        return self._entries(subfolder, folders=True)

    def remove(self, name: str) -> None:
        """Delete a file that is no longer needed; a refusal is logged."""
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            # Permissions that let workers write and not delete are common; nothing depends on this file any more.
            log.warning("Staging: cannot remove %s, which is no longer needed: %s", self.path / name, error)

    def _entries(self, subfolder: str, *, folders: bool) -> list[str]:
        raise NotImplementedError


def cannot(verb: str, path: object, error: OSError) -> StagingError:
    """Return the error for a path that cannot be used."""
    return StagingError(
        f"Staging: cannot {verb} {path}: {error.strerror or error}. What was sealed or collected before is kept. "
        "Check the path and its permissions ([openai_batch] staging or staging=), then clear the task."
    )
