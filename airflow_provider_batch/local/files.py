"""`/v1/files`: uploads stream to disk, downloads stream from it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.datastructures import FormData, UploadFile

from airflow_provider_batch.local.errors import ApiError, invalid_value, missing_parameter
from airflow_provider_batch.local.records import FileObject, new_file_id
from airflow_provider_batch.local.server import TheServer, expect_form, expires_after, limit_of
from airflow_provider_batch.local.settings import FILE_LIFETIME, MAX_FILE_BYTES, MAX_INPUT_BYTES

router = APIRouter(prefix="/files")

_PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
#: a first line longer than this is left to the batch's own validation
_FIRST_LINE = 16_000_000


@router.post("")
async def upload(request: Request, server: TheServer) -> dict[str, Any]:
    """Store a file of up to 512 MB; one for batches: named `.jsonl`, up to 200 MB, its first line a JSON object."""
    expect_form(request)
    server.admit(server.uploads, "files uploaded per minute")
    # The form parser of Starlette spools everything beyond a megabyte to a temporary file while it arrives.
    async with request.form(max_files=1, max_fields=10) as form:
        content = form.get("file")
        if not isinstance(content, UploadFile):
            raise missing_parameter("file")
        purpose = form.get("purpose")
        if purpose is None:
            raise missing_parameter("purpose")
        if not isinstance(purpose, str) or purpose not in _PURPOSES:
            raise invalid_value("purpose", purpose, _PURPOSES)
        lifetime = _lifetime(form, purpose)
        if purpose == "batch":
            await run_in_threadpool(_check_batch_input, content)
        elif (content.size or 0) > MAX_FILE_BYTES:
            raise ApiError(400, "File is too large.")
        file_id = new_file_id()
        size = await run_in_threadpool(_keep, content.file, server.store.path(file_id))
        now = server.clock.seconds()
        file = FileObject(
            id=file_id,
            bytes=size,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            filename=content.filename or "file",
            purpose=purpose,
        )
    server.store.add_file(file)
    return _wire(file)


def _lifetime(form: FormData, purpose: str) -> int | None:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return FILE_LIFETIME if purpose == "batch" else None
    # A form has no numbers.
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,18}", seconds):
        return expires_after(anchor, int(seconds), "expires_after")
    return expires_after(anchor, seconds, "expires_after")


def _check_batch_input(content: UploadFile) -> None:
    """The little that OpenAI checks at upload; everything else is found when a batch is validated."""
    wrong = ApiError(400, "Invalid file format for Batch API. Must be .jsonl")
    if not (content.filename or "").endswith(".jsonl") or not content.size:
        raise wrong
    if content.size > MAX_INPUT_BYTES:
        raise ApiError(400, "File is too large.")
    first = content.file.readline(_FIRST_LINE)
    content.file.seek(0)
    # A byte order mark passes here and fails the batch's first line later, as OpenAI has it.
    text = first.removeprefix(b"\xef\xbb\xbf").strip()
    if text and len(first) < _FIRST_LINE:
        try:
            msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise wrong from error


def _keep(source: BinaryIO, target: Path) -> int:
    with open(target, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
        return out.tell()


def _wire(file: FileObject) -> dict[str, Any]:
    wire = msgspec.to_builtins(file)
    assert isinstance(wire, dict)
    return wire


@router.get("")
async def list_files(request: Request, server: TheServer) -> dict[str, Any]:
    """Files, newest first unless `order=asc`, by pages of up to 10,000."""
    limit = limit_of(request, default=10_000, most=10_000)
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid_value("order", order, ["asc", "desc"])
    after = request.query_params.get("after")
    if after is not None:
        _known(server, after)
    found = server.store.list_files(
        after=after,
        limit=limit + 1,
        ascending=order == "asc",
        purpose=request.query_params.get("purpose"),
    )
    page = found[:limit]
    return {
        "object": "list",
        "data": [_wire(file) for file in page],
        "first_id": page[0].id if page else "",
        "last_id": page[-1].id if page else "",
        "has_more": len(found) > limit,
    }


def _known(server: TheServer, file_id: str) -> FileObject:
    file = server.store.file(file_id)
    if file is None:
        raise ApiError(404, f"No such File object: {file_id}", param="id")
    return file


@router.get("/{file_id}")
async def retrieve(file_id: str, server: TheServer) -> dict[str, Any]:
    """One file's description."""
    return _wire(_known(server, file_id))


@router.delete("/{file_id}")
async def delete(file_id: str, server: TheServer) -> dict[str, Any]:
    """Delete a file. A batch that already took it as its input goes on."""
    _known(server, file_id)
    server.store.delete_file(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/{file_id}/content")
async def content(file_id: str, server: TheServer) -> FileResponse:
    """The bytes, streamed from disk."""
    file = _known(server, file_id)
    return FileResponse(server.store.path(file.id), media_type="application/octet-stream", filename=file.filename)
