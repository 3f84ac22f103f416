"""Files that are uploaded in parts, with `client.uploads` of the real SDK."""

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
def admin_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalServer, OpenAI]]:
    """A server whose clock the tests in this file move."""
    with LocalServer(tmp_path_factory.mktemp("state"), admin=True) as server, make_client(server) as client:
        yield server, client


def create(
    client: OpenAI,
    size: int = len(CONTENT),
    filename: str = "input.jsonl",
    purpose: Literal["batch", "user_data"] = "batch",
    **fields: Any,
) -> Upload:
    return client.uploads.create(
        bytes=size, filename=filename, mime_type="application/jsonl", purpose=purpose, extra_body=fields
    )


def add(client: OpenAI, upload: Upload, data: bytes) -> str:
    return client.uploads.parts.create(upload.id, data=data).id


def status_of(call: Callable[[], Any]) -> int:
    with pytest.raises(APIStatusError) as error_info:
        call()
    assert_fits(error_info.value.response.json(), "ErrorResponse")
    return error_info.value.status_code


def stored_parts(server: LocalServer) -> list[str]:
    return [path.name for path in (server.state / "uploads").glob("*/*")]


def test_the_sdk_uploads_a_file_in_parts_and_a_batch_uses_it(client: OpenAI, tmp_path: Path) -> None:
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


def test_the_async_sdk_uploads_a_file_in_parts(server: LocalServer) -> None:
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


def test_every_response_matches_the_published_schema(client: OpenAI) -> None:
    raw = client.uploads.with_raw_response
    created = json.loads(
        raw.create(bytes=4, filename="a.txt", mime_type="text/plain", purpose="assistants").http_response.content
    )
    part = json.loads(client.uploads.parts.with_raw_response.create(created["id"], data=b"text").http_response.content)
    completed = json.loads(raw.complete(created["id"], part_ids=[part["id"]]).http_response.content)
    other_upload = create(client)
    cancelled = json.loads(raw.cancel(other_upload.id).http_response.content)

    for upload in (created, completed, cancelled):
        assert_fits(upload, "Upload")
    assert_fits(part, "UploadPart")
    assert [upload["status"] for upload in (created, completed, cancelled)] == ["pending", "completed", "cancelled"]
    assert "file" not in created
    assert created["expires_at"] == created["created_at"] + 3600


def test_complete_determines_the_order_of_parts(client: OpenAI) -> None:
    pieces = [bytes([65 + number]) * 100_000 for number in range(12)]
    upload = create(client, sum(map(len, pieces)), "pieces.bin", "user_data")
    with ThreadPoolExecutor(6) as pool:
        part_ids = list(pool.map(lambda piece: add(client, upload, piece), pieces))

    completed = client.uploads.complete(upload.id, part_ids=part_ids[::-1])

    assert completed.file is not None
    assert client.files.content(completed.file.id).content == b"".join(pieces[::-1])


def test_parts_that_complete_does_not_list_are_omitted(client: OpenAI) -> None:
    upload = create(client, 3, "a.txt", "user_data")
    add(client, upload, b"sent twice")
    part = add(client, upload, b"one")

    completed = client.uploads.complete(upload.id, part_ids=[part])

    assert completed.file is not None
    assert client.files.content(completed.file.id).content == b"one"


def test_a_part_can_be_a_plain_form_field(client: OpenAI, server: LocalServer) -> None:
    upload = create(client, 5, "a.txt", "user_data")
    response = httpx2.post(
        f"{server.base_url}/uploads/{upload.id}/parts",
        headers={"Authorization": "Bearer local"},
        files={"data": (None, b"plain")},
    )

    completed = client.uploads.complete(upload.id, part_ids=[response.json()["id"]])

    assert completed.file is not None
    assert client.files.content(completed.file.id).content == b"plain"


@pytest.mark.parametrize(
    ("changes", "param"),
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
def test_create_rejects_invalid_parameters(client: OpenAI, changes: dict[str, Any], param: str) -> None:
    valid = {"bytes": 1, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
    with pytest.raises(BadRequestError) as call:
        client.post("/uploads", body={**valid, **changes}, cast_to=object)

    assert call.value.param == param


def test_create_accepts_what_the_json_schema_accepts(client: OpenAI) -> None:
    body = {"bytes": 5.0, "filename": "a.txt", "mime_type": "", "purpose": "vision", "expires_after": None}

    assert client.post("/uploads", body=body, cast_to=Upload).bytes == 5


def test_an_upload_can_have_8_gb(client: OpenAI) -> None:
    assert create(client, 8 << 30, "large.bin", "user_data").bytes == 8 << 30


def test_a_batch_input_file_in_parts_has_to_pass_the_usual_checks(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"Must be \.jsonl"):
        create(client, 10, "rows.json")
    with pytest.raises(BadRequestError, match="File is too large"):
        create(client, 200_000_001)
    upload = create(client, 9)
    part = add(client, upload, b"not JSON\n")

    with pytest.raises(BadRequestError, match=r"Must be \.jsonl"):
        client.uploads.complete(upload.id, part_ids=[part])


def test_a_part_of_more_than_64_mb_is_rejected(client: OpenAI) -> None:
    upload = create(client, 100 * MB, "large.bin", "user_data")

    assert add(client, upload, bytes(64 * MB))
    with pytest.raises(BadRequestError, match="part is too large"):
        add(client, upload, bytes(64 * MB + 1))


def test_a_rejected_complete_leaves_no_file_and_can_be_repeated(client: OpenAI, server: LocalServer) -> None:
    upload = create(client, 6, "a.txt", "user_data")
    first = add(client, upload, b"abc")
    other_upload = create(client, 3, "b.txt", "user_data")
    foreign_part, longer_part = add(client, other_upload, b"def"), add(client, upload, b"defg")
    files = {path.name for path in (server.state / "files").iterdir()}
    invalid_bodies = [
        {"part_ids": [first]},
        {"part_ids": [first, longer_part]},
        {"part_ids": [first, first]},
        {"part_ids": [first, foreign_part]},
        {"part_ids": [first, 5]},
        {"part_ids": first},
        {"part_ids": []},
        {"md5": "0" * 32},
    ]
    for body in invalid_bodies:
        complete = partial(client.post, f"/uploads/{upload.id}/complete", body=body, cast_to=object)
        assert status_of(complete) == 400

    second = add(client, upload, b"def")
    with pytest.raises(BadRequestError, match="The MD5 of the parts is e80b5017098950fc58aad83c8c14978e"):
        client.uploads.complete(upload.id, part_ids=[first, second], md5="0" * 32)
    assert {path.name for path in (server.state / "files").iterdir()} == files
    completed = client.uploads.complete(upload.id, part_ids=[first, second], md5="E80B5017098950FC58AAD83C8C14978E")

    assert completed.status == "completed"


@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
def test_an_ended_upload_accepts_no_more_calls_and_has_no_parts(
    admin_server: tuple[LocalServer, OpenAI], end: str
) -> None:
    server, client = admin_server
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

    for call in (
        lambda: add(client, upload, b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(BadRequestError, match=f"an upload with status '{end}'"):
            call()
    assert part not in stored_parts(server)


def test_creating_an_upload_deletes_the_parts_of_expired_ones(admin_server: tuple[LocalServer, OpenAI]) -> None:
    server, client = admin_server
    part = add(client, create(client), CONTENT)
    server.advance(3600)

    create(client)

    assert part not in stored_parts(server)


def test_an_upload_can_be_completed_within_an_hour(admin_server: tuple[LocalServer, OpenAI]) -> None:
    server, client = admin_server
    upload = create(client)
    server.advance(3590)

    part = add(client, upload, CONTENT)

    assert client.uploads.complete(upload.id, part_ids=[part]).status == "completed"


def test_the_lifetime_of_the_file_starts_at_its_completion(admin_server: tuple[LocalServer, OpenAI]) -> None:
    server, client = admin_server
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
    for call in (
        lambda: client.uploads.parts.create("upload_x", data=b"x"),
        lambda: client.uploads.complete("upload_x", part_ids=[]),
        lambda: client.uploads.cancel("upload_x"),
    ):
        with pytest.raises(NotFoundError, match="No such Upload object: upload_x"):
            call()


def test_a_part_must_be_a_form_with_only_the_field_data(client: OpenAI) -> None:
    path = f"/uploads/{create(client).id}/parts"
    form: Any = {"headers": {"Content-Type": "multipart/form-data"}}

    def send(files: dict[str, bytes]) -> int:
        return status_of(lambda: client.post(path, body={}, files=files, options=form, cast_to=object))

    assert status_of(lambda: client.post(path, body={"data": "x"}, cast_to=object)) == 415
    assert send({"file": b"x"}) == 400
    assert send({"data": b"x", "more": b"x"}) == 400


def test_a_killed_server_keeps_parts_and_deletes_orphaned_ones(serve: Serve) -> None:
    server, client = serve()
    upload = create(client)
    first = add(client, upload, CONTENT[:1000])
    server.kill()
    incomplete_part = server.state / "uploads" / upload.id / "part_torn"
    incomplete_part.write_bytes(b"half of a part")
    orphaned_folder = server.state / "uploads" / "upload_left"
    orphaned_folder.mkdir()

    server.start()
    second = add(client, upload, CONTENT[1000:])
    completed = client.uploads.complete(upload.id, part_ids=[first, second])

    assert not incomplete_part.exists()
    assert not orphaned_folder.exists()
    assert completed.file is not None
    server.kill()
    server.start()
    assert client.files.content(completed.file.id).content == CONTENT
    assert status_of(lambda: client.uploads.cancel(upload.id)) == 400
