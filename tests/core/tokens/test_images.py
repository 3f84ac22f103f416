"""Tokens of images, by OpenAI's published rules and examples."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.tokens.image_rules import image_tokens
from airflow_provider_batch.core.tokens.image_size import image_size, open_base64


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + b"\0" * 50


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 50


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 40_002) + b"E" * 40_000
    frame = b"\xff\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3)
    return b"\xff\xd8" + exif + b"\xff\xc4\x00\x04ab" + before + frame + b"\0" * 50


def webp(chunk: bytes, content: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + chunk + b"\0\0\0\0" + content + b"\0" * 30


IMAGES = {
    "png": png(1800, 2400),
    "gif": gif(1800, 2400),
    "jpeg": jpeg(1800, 2400),
    "webp, lossy": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 1800, 2400)),
    "webp, lossless": webp(b"VP8L", b"\x2f" + struct.pack("<I", 1799 | 2399 << 14)),
    "webp, extended": webp(b"VP8X", b"\0\0\0\0" + (1799).to_bytes(3, "little") + (2399).to_bytes(3, "little")),
}


def size_of(source: str) -> tuple[int, int] | None:
    data = open_base64(source)
    return None if data is None else image_size(data)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_the_size_is_read_from_the_header(image: bytes) -> None:
    text = base64.b64encode(image).decode()
    assert size_of(text) == size_of("data:image/png;base64," + text) == (1800, 2400)
    assert size_of(base64.encodebytes(image).decode()) == (1800, 2400)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_a_header_that_ends_early_has_no_size(image: bytes) -> None:
    for length in range(10):
        assert size_of(base64.b64encode(image[:length]).decode()) is None


@pytest.mark.parametrize(
    "source",
    [
        "https://example.com/a.png",
        "data:image/png,%89PNG",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,????",
        "é" * 99,
        "",
        base64.b64encode(png(0, 5)).decode(),
    ],
)
def test_anything_else_has_no_size(source: str) -> None:
    assert size_of(source) is None


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBPVP8 ", b"GIF89a"])
)
def test_any_bytes_have_a_size_or_none(content: bytes, start: bytes) -> None:
    size = size_of(base64.b64encode(start + content).decode())
    assert size is None or min(size) > 0


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        # the examples of the guide "Images and vision"
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-5.4", (1024, 1024), "high", 1229),
        ("gpt-5.4", (2048, 2048), "high", 3000),
        # the tables of the guide
        ("gpt-4o-mini", (1024, 1024), "auto", 25_501),
        ("gpt-4o-mini-2024-07-18", (1024, 1024), "low", 2833),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", (1024, 1024), "high", 25_501),
        ("azure/gpt-4o-mini", (1024, 1024), "high", 25_501),
        ("gpt-4.1", (1024, 1024), "high", 765),
        ("gpt-4.1-mini", (1024, 1024), "low", 1659),
        ("gpt-4.1-nano", (1024, 1024), "high", 2520),
        ("chatgpt-4o-latest", (512, 512), "high", 255),
        ("gpt-5", (1024, 1024), "high", 630),
        ("gpt-5-2025-08-07", (1024, 1024), "low", 70),
        ("gpt-5.1", (1024, 1024), "high", 630),
        ("gpt-5-mini", (1024, 1024), "low", 1229),
        ("gpt-5-mini", (1600, 1600), "high", 1826),
        ("gpt-5-nano", (1024, 1024), "high", 1536),
        ("gpt-5.2", (2048, 2048), "high", 4916),
        ("gpt-5.4-mini", (1600, 1600), "auto", 3000),
        ("gpt-5.5", (3000, 3000), "auto", 10_604),
        ("gpt-5.5", (512, 512), "low", 308),
        ("gpt-5.6-luna", (4000, 3000), "auto", 14_100),
        ("gpt-5.6-luna", (4000, 3000), "original", 14_100),
        ("gpt-5.6-luna", (4000, 3000), "low", 231),
        ("gpt-6-sol", (4000, 3000), "high", 2942),
        ("o3", (1024, 1024), "high", 675),
        ("o4-mini", (1024, 1024), "high", 1762),
        ("computer-use-preview", (1024, 1024), "high", 581),
    ],
)
def test_the_tokens_of_an_image_follow_the_published_rules(
    model: str, size: tuple[int, int], detail: str, tokens: int
) -> None:
    assert image_tokens(model, *size, detail) == tokens
    assert image_tokens(model, *reversed(size), detail) == tokens


@pytest.mark.parametrize("model", ["my-deployment", "pro1", "gpt-7", "gpt-5.9", ""])
def test_an_unknown_model_costs_no_less_than_the_newest_known_one(model: str) -> None:
    for detail in ("low", "high", "auto", "original", "other"):
        assert image_tokens(model, 3000, 2000, detail) >= image_tokens("gpt-5.6-sol", 3000, 2000, detail)


MODELS = st.sampled_from(["gpt-4o", "gpt-4o-mini", "gpt-5.4", "gpt-5-nano", "gpt-5.6-sol", "x"])
SIDES = st.integers(1, 70_000) | st.sampled_from([1, 2**31, 2**32 - 1])


@given(MODELS, SIDES, SIDES, st.sampled_from(["low", "high", "auto", "original"]))
def test_an_image_of_any_size_has_some_tokens_and_no_more_than_the_largest_image(
    model: str, width: int, height: int, detail: str
) -> None:
    highest = {"gpt-4o-mini": 2833 + 8 * 5667, "x": 73_800}.get(model, 36_000)
    assert 1 <= image_tokens(model, width, height, detail) <= highest


@given(MODELS, st.integers(1, 60_000), st.integers(1, 60_000))
def test_a_larger_image_of_the_same_shape_costs_about_as_much_or_more(model: str, width: int, height: int) -> None:
    small, large = image_tokens(model, width, height, "high"), image_tokens(model, 2 * width, 2 * height, "high")
    assert large >= 0.9 * small
