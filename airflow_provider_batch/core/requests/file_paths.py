"""Where a row may read files, and which file a rendered path names.

The values of a row are data, and whoever writes them must not choose what the worker reads: not its disk, not another
bucket, and no address of its network. The author of the DAG therefore states a root, either as `files_root` or as the
literal beginning of the template, and every path stays below it.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.core.requests.value import has_lone_surrogate
from airflow_provider_batch.exceptions import InputError

#: scheme of files on the local disk
LOCAL = "file"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<target>.*)", re.DOTALL)
_REMOTE_SCHEMES = ("http", "https", "ftp", "ftps", "data")
#: how many times an encoded path is decoded in search of `..`
_MAX_DECODINGS = 5


class UnusableFileError(Exception):
    """Raised if a file cannot be part of a request. It costs its row and no other."""

    def __init__(self, code: str, message: str) -> None:
        """:param code: the row's error_code. :param message: a full sentence that names the file."""
        super().__init__(message)
        self.code, self.message = code, message


class Location(NamedTuple):
    """A file, or the folder below which the files of a job are."""

    scheme: str
    #: Airflow connection of the object store; empty for the default of its filesystem
    connection: str
    #: empty for a local file
    bucket: str
    #: path inside the bucket, without a leading slash; for a local file its absolute path
    path: str
    #: path of the folder below which a file must be; a symbolic link on the local disk must not lead out of it
    root: str = ""

    def __str__(self) -> str:
        connection = f"{self.connection}@" if self.connection else ""
        separator = "" if self.scheme == LOCAL else "/"
        return f"{self.scheme}://{connection}{self.bucket}{separator}{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def parse_root(argument: str, text: str) -> Location:
    """Return the folder in which a path or URL ends: `s3://bucket/photos/img-` means `s3://bucket/photos/`.

    :param argument: name of the argument, for errors.
    :raises InputError: if the text names no folder of an object store or of the local disk.
    """
    match = _URL.fullmatch(text)
    scheme = match["scheme"].lower() if match else LOCAL
    target = match["target"] if match else text
    if scheme in _REMOTE_SCHEMES:
        raise InputError(
            f"{argument}: {shorten(text)} is an address that the worker would have to download. Only files on object "
            "storage or on a disk are read. To let the provider download an image, put its URL into the prompt: "
            "prompt=[{'type': 'text', 'text': '…'}, {'type': 'image_url', 'image_url': {'url': '{{ row.url }}'}}]."
        )
    if _has_control_character(text):
        raise InputError(f"{argument}: {shorten(text)} contains a control character, such as a line break. Remove it.")
    if "::" in text:
        raise InputError(f"{argument}: {shorten(text)} chains filesystems with `::`, which is not supported.")
    if _has_parent_reference(target):
        raise InputError(f"{argument}: {shorten(text)} contains `..`. Write the path without it.")
    if scheme == LOCAL:
        if not target.startswith("/"):
            raise InputError(
                f"{argument}: {shorten(text)} must begin with the address of a folder, such as 's3://bucket/photos/' "
                "or '/data/photos/'."
            )
        folder = target[: target.rindex("/") + 1]
        if not folder.strip("/"):
            raise InputError(
                f"{argument}: {shorten(text)} would allow a row to read any file on the worker's disk. Name a folder, "
                "such as '/data/photos/'."
            )
        return Location(LOCAL, "", "", folder)
    authority, slash, path = target.partition("/")
    connection, _, bucket = authority.rpartition("@")
    if ":" in connection:
        raise InputError(
            f"{argument}: The address contains a password. Put it into an Airflow connection, and write the id of the "
            f"connection before the bucket: '{scheme}://my_connection@{bucket}/'."
        )
    if not slash or not bucket:
        raise InputError(
            f"{argument}: {shorten(text)} must name the bucket or container, such as '{scheme}://bucket/', so that no "
            "row can read from another one."
        )
    return Location(scheme, connection, bucket, path[: path.rfind("/") + 1])


def locate(root: Location, text: str) -> Location | None:
    """Return the file that a rendered path names, or None if it names no file: it is blank or only a folder.

    The path may be relative to the root, or absolute: with the scheme, the bucket and, optionally, the connection of
    the root.

    :raises UnusableFileError: if the file is not below the root.
    """
    if not text.strip():
        return None
    match = _URL.fullmatch(text)
    if match:
        location = _parse_url(root, match["scheme"].lower(), match["target"], text)
    elif root.scheme == LOCAL:
        location = root._replace(path=text if text.startswith("/") else root.path + text)
    else:
        location = root._replace(path=root.path + text)
    if _has_control_character(text):
        raise _outside(root, text, "contains a control character")
    if has_lone_surrogate(text):
        raise _outside(root, text, "contains half of a character (a lone surrogate)")
    if "::" in text:
        raise _outside(root, text, "contains `::`")
    if _has_parent_reference(location.path):
        raise _outside(root, text, "contains `.` or `..`")
    if not location.path.startswith(root.path):
        raise _outside(root, text, "lies outside of it")
    return None if location.path.endswith("/") else location._replace(root=root.path)


def _parse_url(root: Location, scheme: str, target: str, text: str) -> Location:
    if scheme != root.scheme:
        raise _outside(root, text, f"begins with {scheme}://")
    if scheme == LOCAL:
        if not target.startswith("/"):
            raise _outside(root, text, "names another machine")
        return Location(LOCAL, "", "", target)
    authority, _, path = target.partition("/")
    connection, _, bucket = authority.rpartition("@")
    if bucket != root.bucket:
        raise _outside(root, text, "names another bucket")
    if connection not in ("", root.connection):
        raise _outside(root, text, "names another connection")
    return root._replace(path=path)


def _has_control_character(text: str) -> bool:
    return any(character < " " or character == "\x7f" for character in text)


def _has_parent_reference(path: str) -> bool:
    """Return whether a part of the path is `.` or `..`, also in percent-encoding or between backslashes."""
    for _ in range(_MAX_DECODINGS):
        if any(part.strip() in (".", "..") for part in re.split(r"[/\\]", path)):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return True


def _outside(root: Location, text: str, reason: str) -> UnusableFileError:
    return UnusableFileError(
        "file_path",
        f"The path {shorten(text)} {reason}. Only files below {root} may be read, because the argument `files` or "
        "`files_root` says so.",
    )
