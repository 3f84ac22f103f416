"""`/v1/uploads`: a file that comes in parts, in any order and several at a time.

What becomes of it follows OpenAI's API description and the docstrings of its SDK (`resources/uploads`). Which words
OpenAI refuses with is not published; these follow what it says of files and batches. A file for batches faces the
checks of `files.create`: its name and size when the upload is created, its first line when it is completed.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from airflow_provider_batch.local.api.errors import ApiError, missing_parameter, out_of_range, wrong_type
from airflow_provider_batch.local.api.objects import FileObject, new_file_id
from airflow_provider_batch.local.http.file_check import (
    check_first_line,
    check_name_and_size,
    known_purpose,
    lifetime_of,
)
from airflow_provider_batch.local.http.server import TheServer, expect_form, json_object, only_known, whole_number
from airflow_provider_batch.local.settings import MAX_PART_BYTES, MAX_UPLOAD_BYTES, UPLOAD_LIFETIME
from airflow_provider_batch.local.storage.upload_store import Upload, UploadStatus, join, new_part_id, new_upload_id

router = APIRouter(prefix="/uploads")


@router.post("")
async def create(request: Request, server: TheServer) -> dict[str, Any]:
    """Begin an upload of up to 8 GB, which must be completed within an hour. Its `mime_type` may be any."""
    body = await json_object(request)
    only_known(body, {"bytes", "filename", "mime_type", "purpose", "expires_after"})
    for name in ("bytes", "filename", "mime_type", "purpose"):
        if body.get(name) is None:
            raise missing_parameter(name)
    for name in ("filename", "mime_type"):
        if not isinstance(body[name], str):
            raise wrong_type(name, "a string", body[name])
    size, policy = whole_number(body["bytes"]), body.get("expires_after")
    if size is None:
        raise wrong_type("bytes", "an integer", body["bytes"])
    refused = out_of_range("bytes", "integer", size, 1, MAX_UPLOAD_BYTES)
    if refused is not None:
        raise refused
    if policy is not None and not isinstance(policy, dict):
        raise wrong_type("expires_after", "an object", policy)
    purpose = known_purpose(body["purpose"])
    check_name_and_size(purpose, body["filename"], size, MAX_UPLOAD_BYTES)
    now = server.clock.seconds()
    upload = Upload(
        id=new_upload_id(),
        bytes=size,
        created_at=now,
        filename=body["filename"],
        purpose=purpose,
        expires_at=now + UPLOAD_LIFETIME,
    )
    server.parted.add(upload, file_lifetime=lifetime_of(policy, purpose))
    return _wire(server, upload)


def _wire(server: TheServer, upload: Upload) -> dict[str, Any]:
    wire: dict[str, Any] = msgspec.to_builtins(upload)
    if wire["file"] is None:
        # As in the published samples.
        del wire["file"]
    else:
        wire["file"] = server.settings.dialect.rewrite_file(wire["file"])
    return wire


def _pending(server: TheServer, upload_id: str, what: str) -> Upload:
    """The upload if it is pending, 404 if there is none, else 400. `what` cannot be done with it then."""
    upload = server.parted.upload(upload_id)
    if upload is None:
        raise ApiError(404, f"No such Upload object: {upload_id}", param="upload_id")
    if upload.status is not UploadStatus.PENDING:
        raise ApiError(400, f"Cannot {what} an upload with status '{upload.status}'.")
    if upload_id in server.parted.completing:
        raise ApiError(400, f"Cannot {what} an upload that is being completed.")
    return upload


@router.post("/{upload_id}/parts")
async def add_part(upload_id: str, request: Request, server: TheServer) -> dict[str, Any]:
    """Add a part of up to 64 MB; of all parts together there may be 8 GB."""
    what = "add a part to"
    _pending(server, upload_id, what)
    expect_form(request)
    # The form parser of Starlette spools everything beyond a megabyte to a temporary file while it arrives.
    async with request.form(max_files=1, max_fields=1) as form:
        data = form.get("data")
        if data is None:
            raise missing_parameter("data")
        source, size = _content(data)
        if size > MAX_PART_BYTES:
            raise ApiError(400, f"The part is too large: {size:,} of at most {MAX_PART_BYTES:,} bytes.", param="data")
        part_id = new_part_id()
        path = server.parted.part_path(upload_id, part_id)
        with ExitStack() as undo:
            undo.callback(path.unlink, missing_ok=True)
            # Meanwhile the upload may end, and its folder go; or other parts may come.
            with suppress(FileNotFoundError):
                await run_in_threadpool(_keep, source, path)
            _pending(server, upload_id, what)
            already = sum(server.parted.part_sizes(upload_id).values())
            if already + size > MAX_UPLOAD_BYTES:
                raise ApiError(
                    400,
                    f"The parts are too large: this one has {size:,} bytes, those before it {already:,},"
                    f" and at most {MAX_UPLOAD_BYTES:,} are allowed.",
                    param="data",
                )
            server.parted.add_part(upload_id, part_id, size)
            undo.pop_all()
    return {"id": part_id, "object": "upload.part", "created_at": server.clock.seconds(), "upload_id": upload_id}


@router.post("/{upload_id}/complete")
async def complete(upload_id: str, request: Request, server: TheServer) -> dict[str, Any]:
    """Make a file of the named parts, in this order. If it is refused, the upload goes on being pending."""
    upload = _pending(server, upload_id, "complete")
    body = await json_object(request)
    only_known(body, {"part_ids", "md5"})
    part_ids, md5 = body.get("part_ids"), body.get("md5")
    if part_ids is None:
        raise missing_parameter("part_ids")
    if not isinstance(part_ids, list):
        raise wrong_type("part_ids", "an array", part_ids)
    if md5 is not None and not isinstance(md5, str):
        raise wrong_type("md5", "a string", md5)
    # The body took its time; from here to `completing` nothing else can come in between.
    _pending(server, upload_id, "complete")
    _check_parts(server, upload, part_ids)
    file_id = new_file_id()
    target = server.store.path(file_id)
    server.parted.completing.add(upload_id)
    with ExitStack() as undo:
        undo.callback(target.unlink, missing_ok=True)
        try:
            found = await run_in_threadpool(join, [server.parted.part_path(upload_id, one) for one in part_ids], target)
            if md5 is not None and md5.lower() != found:
                raise ApiError(400, f"The MD5 of the parts is {found}, not {md5} as given.", param="md5")
            if upload.purpose == "batch":
                with open(target, "rb") as content:
                    await run_in_threadpool(check_first_line, content)
        finally:
            server.parted.completing.discard(upload_id)
        now, lifetime = server.clock.seconds(), server.parted.file_lifetime(upload_id)
        file = FileObject(
            id=file_id,
            bytes=upload.bytes,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            filename=upload.filename,
            purpose=upload.purpose,
        )
        upload = server.parted.complete(upload, file)
        undo.pop_all()
    return _wire(server, upload)


def _check_parts(server: TheServer, upload: Upload, part_ids: list[Any]) -> None:
    sizes = server.parted.part_sizes(upload.id)
    named = set[str]()
    for index, part_id in enumerate(part_ids):
        name = f"part_ids[{index}]"
        if not isinstance(part_id, str):
            raise wrong_type(name, "a string", part_id)
        if part_id not in sizes:
            raise ApiError(400, f"No such part of upload {upload.id}: {part_id}", param=name)
        if part_id in named:
            raise ApiError(400, f"The part {part_id} is named twice.", param=name)
        named.add(part_id)
    given = sum(sizes[part_id] for part_id in named)
    if given != upload.bytes:
        raise ApiError(
            400, f"The parts have {given:,} bytes, but {upload.bytes:,} were declared when the upload was created."
        )


def _content(data: UploadFile | str) -> tuple[BinaryIO, int]:
    """A part's bytes and their number, sent as a file, as the SDK does, or as a plain field, as in OpenAI's sample."""
    if isinstance(data, str):
        text = data.encode()
        return BytesIO(text), len(text)
    return data.file, data.size or 0


def _keep(source: BinaryIO, path: Path) -> None:
    with open(path, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)


@router.post("/{upload_id}/cancel")
async def cancel(upload_id: str, server: TheServer) -> dict[str, Any]:
    """Give an upload up, and its parts."""
    return _wire(server, server.parted.cancel(_pending(server, upload_id, "cancel")))
