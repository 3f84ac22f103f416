"""Files that are uploaded to the provider, instead of being part of an input file.

A request is always rendered with its files in base64. That body gives the request hash and the estimate, so it does not
matter how a file is sent. What is sealed is a copy in which each file that the endpoint takes by id is replaced by a
*reference*: the hash of its content and its name. Only when a request is sent is the reference replaced by the id under
which the provider has the file. A sealed input file therefore stays usable even if the provider has deleted the file.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from airflow_provider_batch.core.requests.value import canonical_json

#: where a job keeps the files that are uploaded, inside its folder
UPLOADS = "uploads"
_REFERENCE = re.compile(rb'"file_id":"sha256:([0-9a-f]{64})"')
#: names of an image by its type
_IMAGE_NAMES = {
    "image/png": "image.png",
    "image/jpeg": "image.jpg",
    "image/webp": "image.webp",
    "image/gif": "image.gif",
}


class FileHeader(msgspec.Struct, frozen=True):
    """What an upload states about a file."""

    name: str
    mime: str
    #: the purpose of the upload: "vision" for an image that the model sees, "user_data" for a document
    purpose: Literal["vision", "user_data"]


class FileToUpload(msgspec.Struct, frozen=True):
    """A file of a request that is sent by its id."""

    #: sha256 of its name and content, hex
    key: str
    header: FileHeader
    content: bytes


def with_references(body: bytes, count: int) -> tuple[bytes, list[FileToUpload]]:
    """Return a request body with references in place of its last `count` files, and these files.

    Files that the endpoint takes in base64 only stay as they are: images and audio in chat completions.
    """
    if not count:
        return body, []
    decoded = msgspec.json.decode(body)
    content = decoded["messages" if "messages" in decoded else "input"][-1]["content"]
    files: list[FileToUpload] = []
    content[-count:] = [_by_reference(part, files) for part in content[-count:]]
    return (canonical_json(decoded), files) if files else (body, [])


def _by_reference(part: dict[str, Any], files: list[FileToUpload]) -> dict[str, Any]:
    match part:
        case {"type": "input_image", "image_url": url, "detail": detail}:
            return {"type": "input_image", "file_id": _reference(url, None, "vision", files), "detail": detail}
        case {"type": "input_file", "filename": name, "file_data": url}:
            details = {"detail": part["detail"]} if "detail" in part else {}
            return {"type": "input_file", "file_id": _reference(url, name, "user_data", files), **details}
        case {"type": "file", "file": {"filename": name, "file_data": url}}:
            return {"type": "file", "file": {"file_id": _reference(url, name, "user_data", files)}}
    return part


def _reference(url: str, name: str | None, purpose: Literal["vision", "user_data"], files: list[FileToUpload]) -> str:
    start, _, data = url.partition(",")
    mime = start.removeprefix("data:").removesuffix(";base64")
    content = base64.b64decode(data)
    header = FileHeader(name or _IMAGE_NAMES[mime], mime, purpose)
    key = hashlib.sha256(msgspec.json.encode(header) + b"\n" + content).hexdigest()
    files.append(FileToUpload(key, header, content))
    return f"sha256:{key}"


def references(line: bytes) -> list[str]:
    """Return the keys of the files to which a line of a sealed input file refers."""
    return [key.decode() for key in _REFERENCE.findall(line)]


def with_file_ids(line: bytes, file_id: Callable[[str], str]) -> bytes:
    """Return a line of a sealed input file with the ids of its files.

    :param file_id: returns the id under which the provider has the file with a key.
    """
    return _REFERENCE.sub(lambda match: b'"file_id":' + canonical_json(file_id(match[1].decode())), line)
