"""Files that are uploaded: references in sealed requests, and the ids that replace them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_batch.core.requests.file_parts import ReadFile, file_part
from airflow_provider_batch.core.requests.file_paths import Location
from airflow_provider_batch.core.requests.uploaded_files import (
    FileHeader,
    references,
    with_file_ids,
    with_references,
)
from airflow_provider_batch.core.requests.value import canonical_json
from tests.core.building import CHAT, RESPONSES
from tests.files import pdf, png, wav


def body_of(endpoint: str, *files: tuple[str, bytes], detail: str | None = None) -> bytes:
    parts = [file_part(ReadFile(Location("s3", "", "b", name), content), endpoint, detail) for name, content in files]
    message = {"role": "user", "content": [{"type": "text", "text": '"file_id":"sha256:' + "0" * 64}, *parts]}
    return canonical_json({"model": "m", "messages" if endpoint == CHAT else "input": [message]})


def parts_of(body: bytes) -> list[dict[str, Any]]:
    decoded = json.loads(body)
    parts: list[dict[str, Any]] = decoded.get("messages", decoded.get("input"))[0]["content"]
    return parts


def test_images_and_documents_of_a_response_are_sent_by_id() -> None:
    body, files = with_references(body_of(RESPONSES, ("a.png", png()), ("b.pdf", pdf()), detail="low"), 2)

    image, document = files
    assert (image.header, image.content) == (FileHeader("image.png", "image/png", "vision"), png())
    assert (document.header, document.content) == (FileHeader("b.pdf", "application/pdf", "user_data"), pdf())
    assert references(body) == [image.key, document.key]
    sent = with_file_ids(body, lambda key: f"file-{key[:4]}")
    assert parts_of(sent)[1:] == [
        {"type": "input_image", "file_id": f"file-{image.key[:4]}", "detail": "low"},
        {"type": "input_file", "file_id": f"file-{document.key[:4]}", "detail": "low"},
    ]
    # a text that looks like a reference is none
    assert parts_of(sent)[0]["text"] == '"file_id":"sha256:' + "0" * 64


def test_chat_completions_takes_only_documents_by_id() -> None:
    original = body_of(CHAT, ("a.png", png()), ("b.wav", wav()), ("c.pdf", pdf()))
    body, files = with_references(original, 3)

    assert [file.header.name for file in files] == ["c.pdf"]
    assert parts_of(body)[:3] == parts_of(original)[:3]
    assert parts_of(body)[3] == {"type": "file", "file": {"file_id": f"sha256:{files[0].key}"}}


@pytest.mark.parametrize("count", [0, 1])
def test_files_that_the_author_wrote_into_the_prompt_stay(count: int) -> None:
    body = body_of(RESPONSES, ("a.png", png()), ("b.png", png(9, 9)))
    assert len(with_references(body, count)[1]) == count
    assert parts_of(with_references(body, count)[0])[1] == parts_of(body)[1]


def test_equal_files_have_one_key_and_files_of_another_name_or_content_another() -> None:
    files = [("a.pdf", pdf()), ("a.pdf", pdf()), ("b.pdf", pdf()), ("a.pdf", pdf(2))]
    keys = [file.key for file in with_references(body_of(RESPONSES, *files), 4)[1]]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
