"""The size of an image in pixels, from the header of its base64 data.

Only the header is decoded, because an image may have megabytes.
"""

from __future__ import annotations

import binascii
import struct
from typing import NamedTuple

#: maximum number of segments of a JPEG that are read; the size is usually in one of the first ten
_MAX_SEGMENTS = 1_000
#: JPEG markers of a frame, which contains the size: SOF0 to SOF15 without DHT, JPG and DAC
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Base64(NamedTuple):
    """Base64 text whose bytes are decoded where they are read."""

    text: str
    #: index of the first character of the data
    start: int = 0

    def size(self) -> int:
        """Return the number of bytes, give or take two."""
        return (len(self.text) - self.start) * 3 // 4

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from position `start`. Characters that are not base64 end the data."""
        first = self.start + start // 3 * 4
        last = self.start + -(-(start + size) // 3) * 4
        quads = self.text[first:last].encode("ascii", "replace")
        try:
            data = binascii.a2b_base64(quads[: len(quads) // 4 * 4], strict_mode=True)
        except binascii.Error:
            return b""
        return data[start % 3 : start % 3 + size]


def open_base64(source: str) -> Base64 | None:
    """Return the data of a data URL or of plain base64. Returns None for anything else, such as a link."""
    start = 0
    if source[:5].lower() == "data:":
        start = source.find(",") + 1
        if not source[:start].lower().endswith(";base64,"):
            return None
    elif "://" in source[:16]:
        return None
    if "\n" in source or " " in source:
        return Base64("".join(source[start:].split()))
    return Base64(source, start)


def image_size(data: Base64) -> tuple[int, int] | None:
    """Return the width and the height of a PNG, JPEG, GIF or WebP image. Returns None if the header is not readable."""
    head = data.read(0, 30)
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", head[16:24])
        elif head.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack("<HH", head[6:10])
        elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            width, height = _webp_size(head)
        elif head.startswith(b"\xff\xd8"):
            width, height = _jpeg_size(data)
        else:
            return None
    except struct.error:
        return None
    return (width, height) if width and height else None


def _webp_size(head: bytes) -> tuple[int, int]:
    if len(head) < 30:
        return 0, 0
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: Base64) -> tuple[int, int]:
    position = 2
    for _ in range(_MAX_SEGMENTS):
        mark, marker, length, _, height, width = struct.unpack(">BBHBHH", data.read(position, 9))
        if mark != 0xFF:
            break
        if marker in _FRAMES:
            return width, height
        # A marker may be preceded by fill bytes.
        position += 1 if marker == 0xFF else 2 + length
    return 0, 0
