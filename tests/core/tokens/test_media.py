"""Tokens of images, sounds and files in a request."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
import zipfile
from typing import Any

import pytest

from airflow_provider_batch.core.tokens.estimate import estimate_tokens
from airflow_provider_batch.core.tokens.image_rules import image_tokens
from airflow_provider_batch.core.tokens.media import LINKED_IMAGE, LINKED_PAGES, PAGE_IMAGE, PAGE_TEXT, TABLE_ROWS
from airflow_provider_batch.core.tokens.request import estimate_request

MODEL = "gpt-4o-mini"
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1024, 1024, 8, 2, 0, 0, 0) + b"\0" * 90_000


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def tokens_of(part: dict[str, Any], model: str = MODEL) -> int:
    """Return what a part adds to a request with a message, for both APIs."""
    sizes = []
    for key in ("messages", "input"):
        body = {key: [{"role": "user", "content": [part]}]}
        empty = {key: [{"role": "user", "content": []}]}
        sizes += [
            estimate_request(json.dumps(body).encode(), model).input_tokens
            - estimate_request(json.dumps(empty).encode(), model).input_tokens
        ]
    assert len(set(sizes)) == 1
    return sizes[0]


@pytest.mark.parametrize(("detail", "tokens"), [(None, 25_501), ("high", 25_501), ("auto", 25_501), ("low", 2833)])
def test_an_image_is_measured_by_its_header_and_detail(detail: str | None, tokens: int) -> None:
    options = {} if detail is None else {"detail": detail}
    assert tokens_of({"type": "image_url", "image_url": {"url": data_url(PNG), **options}}) == tokens
    assert tokens_of({"type": "input_image", "image_url": data_url(PNG), **options}) == tokens


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": "https://example.com/a.png"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_image", "image_url": None, "file_id": "file-abc"},
        {"type": "computer_screenshot", "file_id": "file-abc"},
        {"type": "input_image", "image_url": data_url(b"not an image")},
    ],
)
def test_an_image_that_cannot_be_measured_has_the_assumed_size(part: dict[str, Any]) -> None:
    assert tokens_of(part) == image_tokens(MODEL, *LINKED_IMAGE) > 25_501


PAGE = b"<< /Type /Page /Parent 1 0 R >>\n<< /Type/Pages /Count 2 >>"
HIGH_PAGE = PAGE_TEXT + image_tokens(MODEL, *PAGE_IMAGE, "high")
LOW_PAGE = PAGE_TEXT + image_tokens(MODEL, *PAGE_IMAGE, "low")


@pytest.mark.parametrize(
    ("content", "pages"), [(b"%PDF-1.7\n" + PAGE * 3, 3), (b"%PDF-1.7\n" + b"x" * 200_000, 4), (b"%PDF-1.7\n", 1)]
)
def test_a_pdf_is_measured_by_its_pages(content: bytes, pages: int) -> None:
    url = data_url(content, "application/pdf")
    assert tokens_of({"type": "file", "file": {"file_data": url, "filename": "a.pdf"}}) == pages * HIGH_PAGE
    assert tokens_of({"type": "input_file", "file_data": url.partition(",")[2]}) == pages * HIGH_PAGE
    assert tokens_of({"type": "input_file", "file_data": url, "detail": "low"}) == pages * LOW_PAGE


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_file", "file_id": "file-abc"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "input_file", "file_data": "????"},
    ],
)
def test_a_file_that_is_not_in_the_request_has_the_assumed_number_of_pages(part: dict[str, Any]) -> None:
    assert tokens_of(part) == LINKED_PAGES * HIGH_PAGE


def test_the_text_of_a_plain_file_is_estimated_like_any_text() -> None:
    text = "Größe;Preis\n" + "12;34,50\n" * 5_000
    content = text.encode()
    part = {"type": "input_file", "filename": "a.txt", "file_data": data_url(content, "text/plain")}
    assert tokens_of(part) == estimate_tokens(text)
    first_rows = "\n".join(text.split("\n")[:TABLE_ROWS])
    assert tokens_of({**part, "filename": "A.CSV"}) == estimate_tokens(first_rows)
    assert tokens_of({**part, "file_data": data_url(content, "text/csv")}) == estimate_tokens(first_rows)


def test_an_office_file_is_measured_by_its_size() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", " ".join(map(str, range(9_000))))
    content = buffer.getvalue()
    part = {"type": "input_file", "filename": "a.docx", "file_data": data_url(content, "application/zip")}
    assert tokens_of(part) == len(content) // 8


def test_a_sound_is_measured_by_its_length() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(b"\0" * 2 * 16_000 * 60)
    wav = base64.b64encode(buffer.getvalue()).decode()
    # OpenAI: one token per 100 ms
    assert tokens_of({"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}) == pytest.approx(
        600, abs=1
    )
    mp3 = base64.b64encode(b"ID3" + b"\0" * 60 * 8_000).decode()  # a minute at 64 kbit/s
    assert 600 <= tokens_of({"type": "input_audio", "input_audio": {"data": mp3, "format": "mp3"}}) <= 1_201


def test_the_sources_of_an_earlier_answer_are_not_files() -> None:
    citation = {"type": "file_citation", "file_id": "file-abc", "filename": "a.pdf", "index": 1}
    assert tokens_of({"type": "output_text", "text": "yes", "annotations": [citation]}) == estimate_tokens("yes")


def test_only_the_header_of_a_large_image_is_decoded() -> None:
    part = {"type": "image_url", "image_url": {"url": data_url(PNG)[:120] + "????"}}
    assert tokens_of(part) == 25_501
