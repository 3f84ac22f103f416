"""Files that come in parts: `client.uploads` of the real SDK."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types import Upload

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve, make_client
from tests.local.driving import CHAT, answers, chats, jsonl, wait
from tests.local.schemas import assert_fits

MB = 1 << 20
CONTENT = jsonl(chats(20))


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalServer, OpenAI]]:
    """A server whose clock the tests of this file move."""
    with LocalServer(tmp_path_factory.mktemp("state"), admin=True) as running, make_client(running) as opened:
        yield running, opened


def create(
    client: OpenAI,
    size: int = len(CONTENT),
    filename: str = "input.jsonl",
    purpose: Literal["batch", "user_data"] = "batch",
    **more: Any,
) -> Upload:
    return client.uploads.create(
        bytes=size, filename=filename, mime_type="application/jsonl", purpose=purpose, extra_body=more
    )


def add(client: OpenAI, upload: Upload, data: bytes) -> str:
    return client.uploads.parts.create(upload.id, data=data).id


def status_of(refused: Callable[[], Any]) -> int:
    with pytest.raises(APIStatusError) as caught:
        refused()
    assert_fits(caught.value.response.json(), "ErrorResponse")
    return caught.value.status_code


def stored_parts(server: LocalServer) -> list[str]:
    return [path.name for path in (server.state / "uploads").glob("*/*")]


def test_the_sdk_sends_a_file_in_parts_and_a_batch_runs_over_it(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(CONTENT)

    upload = client.uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="batch",
        part_size=1000,
        md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
    )

    assert len(CONTENT) > 3 * 1000
    assert upload.status == "completed"
    assert upload.file is not None
    file = client.files.retrieve(upload.file.id)
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(CONTENT), "rows.jsonl", "batch", "processed")
    assert client.files.content(file.id).content == CONTENT
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert set(answers(client, wait(client, batch))) == {f"row-{number}" for number in range(20)}


def test_the_async_sdk_sends_a_file_in_parts(server: LocalServer) -> None:
    async def send() -> Upload:
        async with AsyncOpenAI(base_url=server.base_url, api_key="local", max_retries=0) as client:
            return await client.uploads.upload_file_chunked(
                file=CONTENT,
                filename="rows.jsonl",
                bytes=len(CONTENT),
                mime_type="application/jsonl",
                purpose="batch",
                part_size=1000,
            )

    upload = asyncio.run(send())

    assert (upload.status, upload.file and upload.file.bytes) == ("completed", len(CONTENT))


def test_every_answer_fits_the_published_schema(client: OpenAI) -> None:
    raw = client.uploads.with_raw_response
    created = json.loads(
        raw.create(bytes=4, filename="a.txt", mime_type="text/plain", purpose="assistants").http_response.content
    )
    part = json.loads(client.uploads.parts.with_raw_response.create(created["id"], data=b"text").http_response.content)
    completed = json.loads(raw.complete(created["id"], part_ids=[part["id"]]).http_response.content)
    other = create(client)
    cancelled = json.loads(raw.cancel(other.id).http_response.content)

    for upload in (created, completed, cancelled):
        assert_fits(upload, "Upload")
    assert_fits(part, "UploadPart")
    assert [upload["status"] for upload in (created, completed, cancelled)] == ["pending", "completed", "cancelled"]
    assert "file" not in created
    assert created["expires_at"] == created["created_at"] + 3600


def test_complete_gives_the_order_of_parts_that_came_in_parallel(client: OpenAI) -> None:
    pieces = [bytes([65 + number]) * 100_000 for number in range(12)]
    upload = create(client, sum(map(len, pieces)), "pieces.bin", "user_data")
    with ThreadPoolExecutor(6) as pool:
        part_ids = list(pool.map(lambda piece: add(client, upload, piece), pieces))

    done = client.uploads.complete(upload.id, part_ids=part_ids[::-1])

    assert done.file is not None
    assert client.files.content(done.file.id).content == b"".join(pieces[::-1])


def test_parts_that_complete_does_not_name_are_left_out(client: OpenAI) -> None:
    upload = create(client, 3, "a.txt", "user_data")
    add(client, upload, b"sent twice")
    part = add(client, upload, b"one")

    done = client.uploads.complete(upload.id, part_ids=[part])

    assert done.file is not None
    assert client.files.content(done.file.id).content == b"one"


def test_a_part_may_be_a_plain_field_of_the_form(client: OpenAI, server: LocalServer) -> None:
    upload = create(client, 5, "a.txt", "user_data")
    sent = httpx2.post(
        f"{server.base_url}/uploads/{upload.id}/parts",
        headers={"Authorization": "Bearer local"},
        files={"data": (None, b"plain")},
    )

    done = client.uploads.complete(upload.id, part_ids=[sent.json()["id"]])

    assert done.file is not None
    assert client.files.content(done.file.id).content == b"plain"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"bytes": None}, "bytes"),
        ({"bytes": "5"}, "bytes"),
        ({"bytes": True}, "bytes"),
        ({"bytes": 1.5}, "bytes"),
        ({"bytes": 0}, "bytes"),
        ({"bytes": (8 << 30) + 1}, "bytes"),
        ({"filename": None}, "filename"),
        ({"filename": 5}, "filename"),
        ({"mime_type": None}, "mime_type"),
        ({"purpose": None}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"expires_after": []}, "expires_after"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_create_refuses_what_the_description_does_not_have(client: OpenAI, wrong: dict[str, Any], param: str) -> None:
    right = {"bytes": 1, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
    with pytest.raises(BadRequestError) as refused:
        client.post("/uploads", body={**right, **wrong}, cast_to=object)

    assert refused.value.param == param


def test_create_takes_what_json_schema_takes(client: OpenAI) -> None:
    body = {"bytes": 5.0, "filename": "a.txt", "mime_type": "", "purpose": "vision", "expires_after": None}

    assert client.post("/uploads", body=body, cast_to=Upload).bytes == 5


def test_8_gb_may_be_declared(client: OpenAI) -> None:
    assert create(client, 8 << 30, "large.bin", "user_data").bytes == 8 << 30


def test_a_file_for_batches_faces_the_checks_of_a_whole_one(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"Must be \.jsonl"):
        create(client, 10, "rows.json")
    with pytest.raises(BadRequestError, match="File is too large"):
        create(client, 200_000_001)
    upload = create(client, 9)
    part = add(client, upload, b"not JSON\n")

    with pytest.raises(BadRequestError, match=r"Must be \.jsonl"):
        client.uploads.complete(upload.id, part_ids=[part])


def test_a_part_of_more_than_64_mb_is_refused(client: OpenAI) -> None:
    upload = create(client, 100 * MB, "large.bin", "user_data")

    assert add(client, upload, bytes(64 * MB))
    with pytest.raises(BadRequestError, match="part is too large"):
        add(client, upload, bytes(64 * MB + 1))


def test_what_complete_refuses_leaves_nothing_behind_and_can_be_made_good(client: OpenAI, server: LocalServer) -> None:
    upload = create(client, 6, "a.txt", "user_data")
    first = add(client, upload, b"abc")
    other = create(client, 3, "b.txt", "user_data")
    foreign, longer = add(client, other, b"def"), add(client, upload, b"defg")
    files = {path.name for path in (server.state / "files").iterdir()}
    refused = [
        {"part_ids": [first]},
        {"part_ids": [first, longer]},
        {"part_ids": [first, first]},
        {"part_ids": [first, foreign]},
        {"part_ids": [first, 5]},
        {"part_ids": first},
        {"part_ids": []},
        {"md5": "0" * 32},
    ]
    for body in refused:
        complete = partial(client.post, f"/uploads/{upload.id}/complete", body=body, cast_to=object)
        assert status_of(complete) == 400

    second = add(client, upload, b"def")
    with pytest.raises(BadRequestError, match="The MD5 of the parts is e80b5017098950fc58aad83c8c14978e"):
        client.uploads.complete(upload.id, part_ids=[first, second], md5="0" * 32)
    assert {path.name for path in (server.state / "files").iterdir()} == files
    done = client.uploads.complete(upload.id, part_ids=[first, second], md5="E80B5017098950FC58AAD83C8C14978E")

    assert done.status == "completed"


@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
def test_an_upload_that_has_ended_takes_nothing_more_and_keeps_no_parts(
    jumping: tuple[LocalServer, OpenAI], end: str
) -> None:
    server, client = jumping
    upload = create(client)
    part = add(client, upload, CONTENT)
    assert part in stored_parts(server)
    match end:
        case "completed":
            client.uploads.complete(upload.id, part_ids=[part])
        case "cancelled":
            client.uploads.cancel(upload.id)
        case _:
            server.advance(3600)

    for refused in (
        lambda: add(client, upload, b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(BadRequestError, match=f"an upload with status '{end}'"):
            refused()
    assert part not in stored_parts(server)


def test_the_parts_of_a_forgotten_upload_go_when_the_next_one_comes(jumping: tuple[LocalServer, OpenAI]) -> None:
    server, client = jumping
    part = add(client, create(client), CONTENT)
    server.advance(3600)

    create(client)

    assert part not in stored_parts(server)


def test_an_upload_lives_until_its_hour_is_over(jumping: tuple[LocalServer, OpenAI]) -> None:
    server, client = jumping
    upload = create(client)
    server.advance(3590)

    part = add(client, upload, CONTENT)

    assert client.uploads.complete(upload.id, part_ids=[part]).status == "completed"


def test_the_file_expires_counted_from_its_completion(jumping: tuple[LocalServer, OpenAI]) -> None:
    server, client = jumping
    day = {"anchor": "created_at", "seconds": 86_400}
    uploads = [create(client), create(client, expires_after=day), create(client, purpose="user_data")]
    server.advance(100)
    lifetimes = []
    for upload in uploads:
        file = client.uploads.complete(upload.id, part_ids=[add(client, upload, CONTENT)]).file
        assert file is not None
        assert file.created_at >= upload.created_at + 100
        lifetimes.append(file.expires_at and file.expires_at - file.created_at)

    assert lifetimes == [2_592_000, 86_400, None]


def test_an_unknown_upload_is_404(client: OpenAI) -> None:
    for refused in (
        lambda: client.uploads.parts.create("upload_x", data=b"x"),
        lambda: client.uploads.complete("upload_x", part_ids=[]),
        lambda: client.uploads.cancel("upload_x"),
    ):
        with pytest.raises(NotFoundError, match="No such Upload object: upload_x"):
            refused()


def test_a_part_comes_as_a_form_with_data(client: OpenAI) -> None:
    path = f"/uploads/{create(client).id}/parts"
    form: Any = {"headers": {"Content-Type": "multipart/form-data"}}

    def send(files: dict[str, bytes]) -> int:
        return status_of(lambda: client.post(path, body={}, files=files, options=form, cast_to=object))

    assert status_of(lambda: client.post(path, body={"data": "x"}, cast_to=object)) == 415
    assert send({"file": b"x"}) == 400
    assert send({"data": b"x", "more": b"x"}) == 400


def test_a_killed_server_keeps_the_parts_and_sweeps_what_belongs_to_none(serve: Serve) -> None:
    server, client = serve()
    upload = create(client)
    first = add(client, upload, CONTENT[:1000])
    server.kill()
    torn = server.state / "uploads" / upload.id / "part_torn"
    torn.write_bytes(b"half of a part")
    left = server.state / "uploads" / "upload_left"
    left.mkdir()

    server.start()
    second = add(client, upload, CONTENT[1000:])
    done = client.uploads.complete(upload.id, part_ids=[first, second])

    assert not torn.exists()
    assert not left.exists()
    assert done.file is not None
    server.kill()
    server.start()
    assert client.files.content(done.file.id).content == CONTENT
    assert status_of(lambda: client.uploads.cancel(upload.id)) == 400
