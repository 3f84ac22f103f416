"""`/v1/files`: uploads stream to disk, downloads stream from it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import python_multipart  # noqa: F401 - reads forms for Starlette, which misses it only when the first one arrives
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.datastructures import FormData, UploadFile

from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter, wrong_type
from airflow_provider_batch.local.api.objects import FileObject, new_file_id
from airflow_provider_batch.local.http.file_check import (
    check_first_line,
    check_name_and_size,
    known_purpose,
    lifetime_of,
)
from airflow_provider_batch.local.http.partial_results import finished_content, growing_file
from airflow_provider_batch.local.http.server import TheServer, expect_form, limit_of
from airflow_provider_batch.local.settings import MAX_FILE_BYTES

router = APIRouter(prefix="/files")


@router.post("")
async def upload(request: Request, server: TheServer) -> dict[str, Any]:
    """Store a file of up to 512 MB; one for batches: `.jsonl` or no extension, 200 MB at most, a JSON object first."""
    expect_form(request)
    server.admit(server.uploads, "files uploaded per minute")
    # The form parser of Starlette spools everything beyond a megabyte to a temporary file while it arrives.
    async with request.form(max_files=1, max_fields=10) as form:
        content = form.get("file")
        if not isinstance(content, UploadFile):
            raise missing_parameter("file")
        purpose = known_purpose(form.get("purpose"))
        lifetime = lifetime_of(_policy(form), purpose)
        check_name_and_size(purpose, content.filename or "", content.size or 0, MAX_FILE_BYTES)
        if purpose == "batch":
            await run_in_threadpool(check_first_line, content.file)
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
    return server.settings.dialect.upload_reply(_wire(file))


def _policy(form: FormData) -> dict[str, Any] | None:
    """`expires_after` as the SDK sends it, in two fields, or as OpenAPI has objects by default, in one of JSON."""
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is not None or seconds is not None:
        # A form has no numbers.
        if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,18}", seconds):
            return {"anchor": anchor, "seconds": int(seconds)}
        return {"anchor": anchor, "seconds": seconds}
    policy: Any = form.get("expires_after")
    if policy is None:
        return None
    if isinstance(policy, str):
        with suppress(msgspec.DecodeError, RecursionError):
            policy = msgspec.json.decode(policy)
    if not isinstance(policy, dict):
        raise wrong_type("expires_after", "an object", policy)
    return policy


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
    dialect = server.settings.dialect
    after = dialect.list_start(request.query_params.get("after"), request.query_params.get("cursor"))
    if after is not None:
        after = _known(server, after).id
    found = server.store.list_files(
        after=after,
        limit=limit + 1,
        ascending=order == "asc",
        purpose=request.query_params.get("purpose"),
    )
    page = found[:limit]
    return dialect.rewrite_page(
        {
            "object": "list",
            "data": [dialect.rewrite_file(_wire(file)) for file in page],
            "first_id": page[0].id if page else "",
            "last_id": page[-1].id if page else "",
            "has_more": len(found) > limit,
        }
    )


def _known(server: TheServer, file_id: str) -> FileObject:
    dialect = server.settings.dialect
    internal_id = dialect.internal_id(file_id)
    file = server.store.file(internal_id)
    if file is not None:
        return file
    if "gone" in dialect and any(
        internal_id in (record.batch.output_file_id, record.batch.error_file_id)
        for record in server.store.ended_batches()
    ):
        raise ApiError(410, f"File {file_id} is gone: it was deleted or has expired.", param="id")
    raise ApiError(404, f"No such File object: {file_id}", param="id")


@router.get("/{file_id}")
async def retrieve(file_id: str, server: TheServer) -> dict[str, Any]:
    """One file's description."""
    growing = growing_file(server, file_id)
    file = _known(server, file_id) if growing is None else await run_in_threadpool(growing.file, server)
    return server.settings.dialect.rewrite_file(_wire(file))


@router.delete("/{file_id}")
async def delete(file_id: str, server: TheServer) -> dict[str, Any]:
    """Delete a file. A batch that already took it as its input goes on."""
    file = _known(server, file_id)
    server.store.delete_file(file.id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/{file_id}/content")
async def content(file_id: str, request: Request, server: TheServer) -> Response:
    """The bytes, streamed from disk."""
    if "growing-output" in server.settings.dialect:
        return await _numbered_content(file_id, request, server)
    file = _known(server, file_id)
    return FileResponse(server.store.path(file.id), media_type="application/octet-stream", filename=file.filename)


async def _numbered_content(file_id: str, request: Request, server: TheServer) -> Response:
    """The same with its lines counted, of a file that may still grow."""
    given = request.query_params.get("offset", "0")
    offset = int(given) if re.fullmatch(r"[0-9]{1,18}", given) else 0
    growing = growing_file(server, file_id)
    if growing is not None:
        # The batch may end while its journal is read; then the file is stored.
        with suppress(FileNotFoundError):
            return await run_in_threadpool(growing.content, server, offset)
    return await run_in_threadpool(finished_content, server, _known(server, file_id), offset)
