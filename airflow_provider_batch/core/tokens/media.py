"""Tokens of the images, sounds and files in a prompt.

A part that contains its data is measured. For a part that only refers to a file (a link or a file id), these sizes are
assumed, which are rather large: an image of `LINKED_IMAGE` pixels, and a PDF of `LINKED_PAGES` pages.

* **Images**: `image_rules`, with the size from the header of the data.
* **PDF**: each page is text and an image (OpenAI's guide "File inputs"): `PAGE_TEXT` tokens and an image of
  `PAGE_IMAGE` pixels, with the `detail` of the file, or `high`. The guide does not say how large these images are.
* **Other files**: only their text is used, and of a table in a text file only the first `TABLE_ROWS` rows. The text of
  a plain file is estimated like any other text. Office files are compressed: one token per `OFFICE_BYTES` bytes.
* **Sounds**: `TOKENS_PER_SECOND` (OpenAI's guide "Managing costs" of the Realtime API: one token per 100 ms). The
  length is that of the header of a WAV file, or follows from the size at `COMPRESSED_BYTES_PER_SECOND`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from airflow_provider_batch.core.tokens.estimate import Encoding, estimate_tokens
from airflow_provider_batch.core.tokens.image_rules import image_tokens
from airflow_provider_batch.core.tokens.image_size import Base64, image_size, open_base64

#: width and height that are assumed for an image that is not part of the request
LINKED_IMAGE = (2048, 1152)
#: number of pages that is assumed for a file that is not part of the request
LINKED_PAGES = 10
#: tokens of the text of a page
PAGE_TEXT = 1_000
#: width and height of the image of a page: Letter at 144 dots per inch
PAGE_IMAGE = (1224, 1584)
#: size of a page of a PDF whose pages cannot be counted, because its objects are compressed
PAGE_BYTES = 50_000
#: size of an office file per token of its text
OFFICE_BYTES = 8
#: number of rows of a table that are used
TABLE_ROWS = 1_000
TOKENS_PER_SECOND = 10
#: a low bit rate of speech: 32 kbit/s
COMPRESSED_BYTES_PER_SECOND = 4_000


class Kind(Enum):
    """What a part of a prompt contains besides text."""

    IMAGE = "image"
    SOUND = "sound"
    FILE = "file"


#: The keys of a part that contain media, or refer to them. The first that is present decides.
_KINDS = {
    "image_url": Kind.IMAGE,
    "input_audio": Kind.SOUND,
    "file": Kind.FILE,
    "file_data": Kind.FILE,
    "file_url": Kind.FILE,
    "file_id": Kind.FILE,
}
KEYS = frozenset(_KINDS)
#: types of parts (Responses API) that refer to an image by `file_id`
_IMAGE_TYPES = ("input_image", "computer_screenshot")
#: keys whose value is the data, or may be
_SOURCES = ("url", "image_url", "data", "file_data")
#: beginnings of the data URLs of tables, and endings of their file names
_TABLE_TYPES, _TABLE_SUFFIXES = ("data:text/csv", "data:text/tab-separated-values"), (".csv", ".tsv")


class Media(NamedTuple):
    """An image, a sound or a file in a prompt."""

    kind: Kind
    #: a data URL, base64 or a link; None if the part only has the id or the link of a file
    source: Any
    detail: Any
    filename: Any


def read_media(part: Mapping[str, Any]) -> Media | None:
    """Return the media of a part of a prompt, or None if it has none."""
    key = next((key for key in _KINDS if part.get(key) is not None), None)
    if key is None:
        return None
    kind = Kind.IMAGE if part.get("type") in _IMAGE_TYPES else _KINDS[key]
    content = {**part, **part[key]} if isinstance(part[key], Mapping) else part
    source = next((content[name] for name in _SOURCES if content.get(name) is not None), None)
    return Media(kind, source, content.get("detail"), content.get("filename"))


def media_tokens(media: Media, model: str, encoding: Encoding) -> int:
    """Return the estimated input tokens of an image, a sound or a file."""
    detail = media.detail if isinstance(media.detail, str) else "auto"
    data = open_base64(media.source) if isinstance(media.source, str) else None
    if media.kind is Kind.IMAGE:
        width, height = (data and image_size(data)) or LINKED_IMAGE
        return image_tokens(model, width, height, detail)
    if media.kind is Kind.SOUND:
        return _sound_tokens(data) if data else 0
    content = data.read(0, data.size() + 2) if data else b""
    if not content:
        return LINKED_PAGES * _page_tokens(model, detail)
    if content.startswith(b"%PDF"):
        return _count_pages(content) * _page_tokens(model, detail)
    if b"\0" in content[:1_000]:
        return len(content) // OFFICE_BYTES
    if str(media.source).startswith(_TABLE_TYPES) or str(media.filename).lower().endswith(_TABLE_SUFFIXES):
        content = b"\n".join(content.split(b"\n", TABLE_ROWS)[:TABLE_ROWS])
    return estimate_tokens(content, encoding)


def _page_tokens(model: str, detail: str) -> int:
    return PAGE_TEXT + image_tokens(model, *PAGE_IMAGE, "low" if detail == "low" else "high")


def _count_pages(content: bytes) -> int:
    pages = len(re.findall(rb"/Type\s*/Page(?![A-Za-z])", content))
    return pages or max(1, len(content) // PAGE_BYTES)


def _sound_tokens(data: Base64) -> int:
    head = data.read(0, 32)
    is_wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
    rate = int.from_bytes(head[28:32], "little") if is_wav else 0
    return TOKENS_PER_SECOND * data.size() // (rate or COMPRESSED_BYTES_PER_SECOND) + 1
