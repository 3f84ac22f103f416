"""A file as a content part of the user message.

The bytes of a file decide what it is, never its name: a JPEG named `.png` is sent as a JPEG. The kinds are those of
OpenAI's guides "Images and vision", "File inputs" and "Audio": images as PNG, JPEG, WebP and GIF; PDF documents, with
the Responses API also Office documents and text; audio as WAV and MP3, with chat completions alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.requests.endpoints import CHAT
from airflow_provider_batch.core.requests.file_paths import Location, UnusableFileError

#: maximum size of a file, in bytes (guide "File inputs": 50 MB for a file, and for all files of a request)
MAX_FILE_BYTES = 50_000_000
#: maximum number of characters of a file name that is sent
_MAX_NAME = 200
#: maximum number of characters of an address in a message
_MAX_ADDRESS = 500

DETAILS = ("auto", "low", "high", "original")


class Kind(Enum):
    """How a file is sent."""

    IMAGE = "image"
    DOCUMENT = "document"
    SOUND = "sound"


class FileType(NamedTuple):
    """What the bytes of a file are."""

    kind: Kind | None
    #: MIME type; for a type that no endpoint takes, a name for people
    name: str
    #: ending of a file name with which the provider recognises a document
    ending: str = ""


_PDF = FileType(Kind.DOCUMENT, "application/pdf", ".pdf")
_MP3 = FileType(Kind.SOUND, "audio/mpeg")
#: types by the first bytes
_SIGNATURES: tuple[tuple[bytes, FileType], ...] = (
    (b"\x89PNG\r\n\x1a\n", FileType(Kind.IMAGE, "image/png")),
    (b"\xff\xd8\xff", FileType(Kind.IMAGE, "image/jpeg")),
    (b"GIF87a", FileType(Kind.IMAGE, "image/gif")),
    (b"GIF89a", FileType(Kind.IMAGE, "image/gif")),
    (b"{\\rtf", FileType(Kind.DOCUMENT, "application/rtf", ".rtf")),
    (b"II*\x00", FileType(None, "a TIFF image")),
    (b"MM\x00*", FileType(None, "a TIFF image")),
    (b"\x00\x00\x01\x00", FileType(None, "an icon")),
    (b"8BPS", FileType(None, "a Photoshop file")),
    (b"OggS", FileType(None, "an Ogg file")),
    (b"fLaC", FileType(None, "FLAC audio")),
    (b"\x1aE\xdf\xa3", FileType(None, "a Matroska or WebM video")),
    (b"\x1f\x8b", FileType(None, "compressed with gzip")),
)
#: types by the bytes 8 to 12 of a RIFF file
_RIFF_TYPES = {
    b"WEBP": FileType(Kind.IMAGE, "image/webp"),
    b"WAVE": FileType(Kind.SOUND, "audio/wav"),
    b"AVI ": FileType(None, "an AVI video"),
}
#: brands of ISO media files that are images or audio; all others are videos
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"), "a HEIC image"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF image"),
    **dict.fromkeys((b"M4A ", b"M4B "), "M4A audio"),
}
_OOXML = "application/vnd.openxmlformats-officedocument."
#: Office documents by their ending: the bytes they begin with, and their MIME type
_OFFICE_TYPES = {
    ".docx": (b"PK\x03\x04", f"{_OOXML}wordprocessingml.document"),
    ".pptx": (b"PK\x03\x04", f"{_OOXML}presentationml.presentation"),
    ".xlsx": (b"PK\x03\x04", f"{_OOXML}spreadsheetml.sheet"),
    ".odt": (b"PK\x03\x04", "application/vnd.oasis.opendocument.text"),
    ".doc": (b"\xd0\xcf\x11\xe0", "application/msword"),
    ".ppt": (b"\xd0\xcf\x11\xe0", "application/vnd.ms-powerpoint"),
    ".xls": (b"\xd0\xcf\x11\xe0", "application/vnd.ms-excel"),
}
#: MIME types of text files by their ending; other text is sent as plain text
_TEXT_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".md": "text/markdown",
    ".json": "application/json",
    ".html": "text/html",
    ".htm": "text/html",
    ".xml": "text/xml",
    ".txt": "text/plain",
}
#: endings of files that are not text: text in such a file is probably an error page
_BINARY_ENDINGS = frozenset(
    (".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".wav", ".mp3", ".heic", ".tif", ".tiff", ".bmp", *_OFFICE_TYPES)
)


class ReadFile(NamedTuple):
    """A file that was read for a request."""

    location: Location
    content: bytes


def file_type(content: bytes, name: str) -> FileType:
    """Return what a file is by its first bytes. Its name only distinguishes types that begin with the same bytes."""
    head = content[:1024]
    for signature, type_ in _SIGNATURES:
        if head.startswith(signature):
            return type_
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return FileType(None, "a BMP image")
    if head[:3] == b"ID3" and head[3:4] < b"\x10":
        return _MP3
    if head[:4] == b"RIFF":
        return _RIFF_TYPES.get(head[8:12], FileType(None, "a RIFF file that is neither WebP nor WAV"))
    if b"%PDF-" in head:
        return _PDF
    if head[4:8] == b"ftyp":
        return FileType(None, _BRANDS.get(head[8:12], "a video"))
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:
        return _MP3  # MPEG layer III without an ID3 tag
    ending = _ending(name)
    signature, mime = _OFFICE_TYPES.get(ending, (b"", ""))
    if signature and head.startswith(signature):
        return FileType(Kind.DOCUMENT, mime, ending)
    if head.startswith(b"PK\x03\x04"):
        return FileType(None, "a ZIP archive")
    if _is_text(content):
        if ending in _BINARY_ENDINGS:
            return FileType(None, f"text, although its name ends in {ending}")
        if head.lstrip()[:5].lower() in (b"<svg ", b"<?xml") and b"<svg" in head:
            return FileType(None, "an SVG image")
        return FileType(Kind.DOCUMENT, _TEXT_TYPES.get(ending, "text/plain"), ending if ending in _TEXT_TYPES else "")
    return FileType(None, "of an unknown type")


def file_part(file: ReadFile, endpoint: str, detail: str | None) -> dict[str, Any]:
    """Return the content part for a file, with its content in base64.

    :param endpoint: `/v1/chat/completions` or `/v1/responses`.
    :param detail: resolution at which the model sees an image or the pages of a document; None for the default.
    :raises UnusableFileError: if the endpoint does not take such a file.
    """
    location, content = file
    if not content:
        raise UnusableFileError("file_empty", f"The file {_describe(location)} is empty.")
    check_size(location, len(content))
    type_ = file_type(content, location.name)
    if type_.kind is None:
        raise UnusableFileError(
            "file_type", f"The file {_describe(location)} is {type_.name}. {_accepted_types(endpoint)}"
        )
    data = base64.b64encode(content).decode("ascii")
    url = f"data:{type_.name};base64,{data}"
    details = {} if detail is None else {"detail": detail}
    if type_.kind is Kind.IMAGE:
        if endpoint == CHAT:
            return {"type": "image_url", "image_url": {"url": url, **details}}
        return {"type": "input_image", "image_url": url, "detail": detail or "auto"}
    if type_.kind is Kind.SOUND and endpoint == CHAT:
        sound_format = "wav" if type_.name == "audio/wav" else "mp3"
        return {"type": "input_audio", "input_audio": {"data": data, "format": sound_format}}
    if type_.kind is Kind.SOUND or (endpoint == CHAT and type_ != _PDF):
        raise UnusableFileError(
            "file_type", f"The file {_describe(location)} is of type {type_.name}. {_accepted_types(endpoint)}"
        )
    name = _sent_name(location.name, type_.ending)
    if endpoint == CHAT:
        return {"type": "file", "file": {"filename": name, "file_data": url}}
    return {"type": "input_file", "filename": name, "file_data": url, **details}


def check_size(location: Location, size: int) -> None:
    """Raise UnusableFileError if a file of this many bytes is too large for a request."""
    if size > MAX_FILE_BYTES:
        raise UnusableFileError(
            "file_too_large",
            f"The file {_describe(location)} has {format_count(size, 'byte')}, but the API takes files of at most "
            f"{MAX_FILE_BYTES:,}.",
        )


def missing_file(location: Location) -> UnusableFileError:
    """Return the error for a file that does not exist."""
    return UnusableFileError("file_missing", f"There is no file {_describe(location)}.")


def unreadable_file(location: Location, reason: str) -> UnusableFileError:
    """Return the error for a file that exists but cannot be read."""
    return UnusableFileError("file_unreadable", f"The file {_describe(location)} cannot be read: {reason}.")


def text_part(endpoint: str, text: Any) -> dict[str, Any]:
    """Return the content part for the text of a message."""
    return {"type": "text" if endpoint == CHAT else "input_text", "text": text}


#: a data URL, or the beginning of one, with base64 data
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,]{0,200};base64,", re.IGNORECASE)


def compact(body: Any, files: tuple[str, ...] = ()) -> Any:
    """Return a request body in which a short description stands for each image, document and audio recording in base64.

    A person reads the result, and it goes into logs and XComs.

    :param files: addresses of the files that the row added to the body, which are its last ones.
    """
    count = 0

    def count_data(text: str, mime: str) -> str:
        nonlocal count
        count += 1
        return text

    _replace_data(body, count_data)
    addresses = iter([*[""] * (count - len(files)), *files])
    return _replace_data(body, lambda text, mime: _describe_data(text, mime, next(addresses, "")))


def _replace_data(value: Any, replace: Callable[[str, str], str]) -> Any:
    if isinstance(value, dict):
        sound = value.get("data")
        if isinstance(sound, str) and value.get("format") in ("wav", "mp3"):
            return {**value, "data": replace(sound, f"audio/{value['format']}")}
        return {key: _replace_data(item, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_data(item, replace) for item in value]
    if isinstance(value, str) and value[:5].lower() == "data:" and (match := _DATA_URL.match(value)):
        return replace(value, match[1] or "data")
    return value


def _describe_data(text: str, mime: str, address: str) -> str:
    size = (len(text) - text.find(",") - 1) * 3 // 4 - text[-2:].count("=")
    return f"<{mime}, {_format_size(size)}{f', {address}' if address else ''}>"


def _format_size(size: int) -> str:
    if size < 1_000:
        return format_count(size, "byte")
    return f"{size / 1_000:,.0f} KB" if size < 1_000_000 else f"{size / 1_000_000:,.1f} MB"


def _accepted_types(endpoint: str) -> str:
    images = "PNG, JPEG, WebP and GIF images"
    if endpoint == CHAT:
        return f"{endpoint} takes {images}, PDF documents, and WAV and MP3 audio."
    return f"{endpoint} takes {images}, and PDF, Office and text documents."


def _describe(location: Location) -> str:
    text = repr(str(location))
    return text if len(text) <= _MAX_ADDRESS else f"{text[:_MAX_ADDRESS]}…"


def _ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""


def _sent_name(name: str, ending: str) -> str:
    """Return a name by which the provider recognises the type of a document."""
    ending = ending or ".txt"
    return name if name.lower().endswith(ending) and len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 10]}{ending}"


def _is_text(content: bytes) -> bool:
    if b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
