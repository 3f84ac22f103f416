"""The options of an import, and the files that it may read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol

import msgspec

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.exceptions import InputError

#: the formats that can be imported
FORMATS = ("openai", "inspect", "promptfoo", "csv", "jsonl", "json")

#: end of each error message of an import
NOTHING_IMPORTED = "Nothing was imported."


class ImportFiles(Protocol):
    """The file to import, and the files that it names."""

    #: address of the file to import
    address: str

    def read(self, path: str | None = None, folders: Sequence[str] = ("",)) -> bytes:
        """Return the content of a file.

        :param path: relative to one of the folders. None for the file to import itself.
        :param folders: relative to the folder of the file to import. The first one that has the file counts.
        :raises InputError: if there is no such file, it is too large, or the path leads out of the folders.
        """


class ImportOptions(msgspec.Struct, frozen=True):
    """The choices of the person who imports."""

    #: start of the ids of cases whose source has none, and a tag of all cases; by default the name of the file or eval
    name: str = ""
    #: the scorer in the other tool, for files that do not name one, such as "Match" or "includes"
    scorer: str = ""
    #: arguments of the scorer, such as {"ignore_case": "false"}
    scorer_options: Mapping[str, str] = {}
    #: grader of ours for all cases, instead of the mapped one
    grader: str = ""
    #: column or key of the file for our column, such as {"input": "question"}
    columns: Mapping[str, str] = {}
    #: write conversations with several turns as a transcript into the input, instead of leaving them out
    transcript: bool = False


def check_address(address: str) -> None:
    """Raise InputError if an address is neither an absolute path nor a URL.

    A relative path would be looked up in the working directory of the worker, which no author of a DAG knows.
    """
    if "://" not in address and not os.path.isabs(address):
        raise InputError(
            f"Expected the address of a file, which is an absolute path such as '/data/evals.jsonl' or a URL such as "
            f"'s3://bucket/evals.jsonl', but got {shorten(address)}. {NOTHING_IMPORTED}"
        )


def check_reference(path: str, place: str) -> None:
    """Check that a file that an imported file names lies in or below the folder that is meant.

    An imported file may come from a stranger, and must not make a worker read other files.

    :raises InputError: if the path is absolute, is a URL, or leads out of the folder.
    """
    parts = PurePosixPath(path).parts
    if not parts or "://" in path or "\\" in path or path.startswith(("/", "~")) or ".." in parts or "\0" in path:
        raise InputError(
            f"{place} names the file {shorten(path)}, which is not in its folder. Only files in or below this folder "
            f"are read. Copy the file there, and change the path. {NOTHING_IMPORTED}"
        )
