"""Requests that refer to uploaded files by their id."""

from __future__ import annotations

import openai
import pytest
from openai import OpenAI

from tests.files import pdf


def test_a_request_may_refer_to_an_uploaded_document(client: OpenAI) -> None:
    file = client.files.create(file=("scan.pdf", pdf(), "application/pdf"), purpose="user_data")
    answer = client.responses.create(
        model="gpt-5-mini",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Summarise it."},
                    {"type": "input_file", "file_id": file.id},
                ],
            }
        ],
    )
    assert answer.output_text
    assert client.files.content(file.id).content == pdf()


def test_an_unknown_file_id_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="No such File object: file-none"):
        client.chat.completions.create(
            model="gpt-5-mini",
            messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-none"}}]}],
        )


def test_an_input_file_cannot_be_part_of_a_request(client: OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", b'{"custom_id": "1"}\n'), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="is 'batch', so it cannot be part of a request"):
        client.responses.create(
            model="gpt-5-mini",
            input=[{"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}],
        )
