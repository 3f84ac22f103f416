"""Lists are paged, newest first, and work with the SDK's auto-paging."""

from __future__ import annotations

import io

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from tests.local.conftest import Serve
from tests.local.driving import CHAT


def test_batches_are_paged_newest_first(serve: Serve) -> None:
    _, client = serve()
    batch_ids = [
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h").id for _ in range(7)
    ]
    newest_first = batch_ids[::-1]

    page = client.batches.list(limit=3)
    assert [batch.id for batch in page.data] == newest_first[:3]
    assert page.has_more
    page = client.batches.list(limit=3, after=newest_first[5])
    assert [batch.id for batch in page.data] == newest_first[6:]
    assert not page.has_more
    assert [batch.id for batch in client.batches.list(limit=2)] == newest_first
    page = client.batches.list(limit=7)
    assert not page.has_more, "a page that is exactly full is the last"


def test_the_default_page_has_20_batches_and_the_largest_100(serve: Serve) -> None:
    _, client = serve()
    for _ in range(21):
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")

    assert len(client.batches.list().data) == 20
    assert len(client.batches.list(limit=100).data) == 21
    for limit in (0, 101):
        with pytest.raises(BadRequestError):
            client.batches.list(limit=limit)
    with pytest.raises(NotFoundError):
        client.batches.list(after="batch_none")


def test_listing_after_an_unknown_file_is_404(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="No such File object: file-none"):
        client.files.list(after="file-none")


def test_files_are_paged_in_both_orders_and_by_purpose(serve: Serve) -> None:
    _, client = serve()
    file_ids = [
        client.files.create(file=(f"{number}.jsonl", io.BytesIO(b"{}\n")), purpose="batch").id for number in range(5)
    ]
    user_data_id = client.files.create(file=("a.txt", io.BytesIO(b"x")), purpose="user_data").id

    assert [file.id for file in client.files.list(purpose="batch", limit=2)] == file_ids[::-1]
    assert [file.id for file in client.files.list(order="asc", limit=2)] == [*file_ids, user_data_id]
    assert [file.id for file in client.files.list(purpose="user_data")] == [user_data_id]
