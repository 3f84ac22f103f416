"""Small files of many kinds, made in the test."""

from __future__ import annotations

import struct
import zlib


def png(width: int = 8, height: int = 8, color: bytes = b"\x10\x20\x30") -> bytes:
    """Return a PNG image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(b"".join(b"\0" + color * width for _ in range(height)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(width: int = 8, height: int = 8) -> bytes:
    """Return the headers of a JPEG image."""
    app0 = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + app0 + frame + b"\xff\xd9"


def gif(width: int = 8, height: int = 8) -> bytes:
    """Return a GIF image."""
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00," + bytes(9) + b"\x02\x02\x4c\x01\x00;"


def webp(width: int = 8, height: int = 8) -> bytes:
    """Return the header of a WebP image."""
    bits = (width - 1) | (height - 1) << 14
    data = b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", bits)
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


def pdf(pages: int = 1) -> bytes:
    """Return a PDF document with empty pages."""
    kids = " ".join(f"{number + 3} 0 R" for number in range(pages))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>"]
    objects += ["<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"] * pages
    body = "".join(f"{number} 0 obj\n{text}\nendobj\n" for number, text in enumerate(objects, start=1))
    return f"%PDF-1.4\n{body}trailer << /Root 1 0 R >>\n%%EOF\n".encode()


def wav(seconds: float = 1.0) -> bytes:
    """Return silence as a WAV file of 8,000 samples per second."""
    data = bytes(int(8_000 * seconds))
    header = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 8_000, 1, 8) + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", 4 + len(header) + len(data)) + b"WAVE" + header + data


def mp3(frames: int = 10) -> bytes:
    """Return silence as an MP3 file without tags."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * frames
