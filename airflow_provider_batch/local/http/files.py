"""`/v1/files`: upload, list, download and delete files. Uploads stream to disk and downloads from it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import python_multipart  # noqa: F401 - Starlette needs it to parse forms, but imports it only for the first one
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.datastructures import FormData, UploadFile

from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter, wrong_type
from airflow_provider_batch.local.api.objects import FileObject, new_file_id
from airflow_provider_batch.local.http.file_check import (
    check_first_line,
    check_name_and_size,
    check_purpose,
    parse_file_lifetime,
)
from airflow_provider_batch.local.http.partial_results import find_growing_file, stored_content
from airflow_provider_batch.local.http.server import ServerDependency, parse_limit, require_form
from airflow_provider_batch.local.settings import MAX_FILE_BYTES

router = APIRouter(prefix="/files")


@router.post("")
async def upload(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Store a file of up to 512 MB.

    A batch input file can have up to 200 MB. Its extension must be `.jsonl` or missing, and its first line a JSON
    object.
    """
    require_form(request)
    server.enforce(server.upload_rate, "files uploaded per minute")
    # while a form arrives, Starlette spools everything beyond 1 MB to a temporary file
    async with request.form(max_files=1, max_fields=10) as form:
        content = form.get("file")
        if not isinstance(content, UploadFile):
            raise missing_parameter("file")
        purpose = check_purpose(form.get("purpose"))
        lifetime = parse_file_lifetime(_policy(form), purpose)
        check_name_and_size(purpose, content.filename or "", content.size or 0, MAX_FILE_BYTES)
        if purpose == "batch":
            await run_in_threadpool(check_first_line, content.file)
        file_id = new_file_id()
        size = await run_in_threadpool(_save, content.file, server.store.path(file_id))
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
    return server.settings.dialect.upload_reply(_to_json(file))


def _policy(form: FormData) -> dict[str, Any] | None:
    """Return `expires_after`, which the SDK sends as two fields. OpenAPI's default for objects is one JSON field."""
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is not None or seconds is not None:
        # form fields are strings
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


def _save(source: BinaryIO, target: Path) -> int:
    with open(target, "wb") as output:
        shutil.copyfileobj(source, output, 1 << 20)
        return output.tell()


def _to_json(file: FileObject) -> dict[str, Any]:
    wire = msgspec.to_builtins(file)
    assert isinstance(wire, dict)
    return wire


@router.get("")
async def list_files(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Return a page of up to 10,000 files, newest first unless `order=asc`."""
    limit = parse_limit(request, default=10_000, maximum=10_000)
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid_value("order", order, ["asc", "desc"])
    dialect = server.settings.dialect
    after = dialect.list_start(request.query_params.get("after"), request.query_params.get("cursor"))
    if after is not None:
        after = _find_file(server, after).id
    files = server.store.list_files(
        after=after,
        limit=limit + 1,
        ascending=order == "asc",
        purpose=request.query_params.get("purpose"),
    )
    page = files[:limit]
    return dialect.rewrite_page(
        {
            "object": "list",
            "data": [dialect.rewrite_file(_to_json(file)) for file in page],
            "first_id": page[0].id if page else "",
            "last_id": page[-1].id if page else "",
            "has_more": len(files) > limit,
        }
    )


def _find_file(server: ServerDependency, file_id: str) -> FileObject:
    dialect = server.settings.dialect
    internal_id = dialect.internal_id(file_id)
    file = server.store.file(internal_id)
    if file is not None:
        return file
    if "gone" in dialect and any(
        internal_id in (record.batch.output_file_id, record.batch.error_file_id)
        for record in server.store.ended_batches()
    ):
        raise ApiError(410, f"File {file_id} was deleted or has expired.", param="id")
    raise ApiError(404, f"No such File object: {file_id}", param="id")


@router.get("/{file_id}")
async def retrieve(file_id: str, server: ServerDependency) -> dict[str, Any]:
    """Return the metadata of one file."""
    growing = find_growing_file(server, file_id)
    file = _find_file(server, file_id) if growing is None else await run_in_threadpool(growing.file, server)
    return server.settings.dialect.rewrite_file(_to_json(file))


@router.delete("/{file_id}")
async def delete(file_id: str, server: ServerDependency) -> dict[str, Any]:
    """Delete a file. Batches that are already running with it as their input continue."""
    file = _find_file(server, file_id)
    server.store.delete_file(file.id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/{file_id}/content")
async def content(file_id: str, request: Request, server: ServerDependency) -> Response:
    """Return a file's content, streamed from disk."""
    if "growing-output" in server.settings.dialect:
        return await _numbered_content(file_id, request, server)
    file = _find_file(server, file_id)
    return FileResponse(server.store.path(file.id), media_type="application/octet-stream", filename=file.filename)


async def _numbered_content(file_id: str, request: Request, server: ServerDependency) -> Response:
    """Return the content of a file that may still grow, with its line count in a header."""
    offset_parameter = request.query_params.get("offset", "0")
    offset = int(offset_parameter) if re.fullmatch(r"[0-9]{1,18}", offset_parameter) else 0
    growing = find_growing_file(server, file_id)
    if growing is not None:
        # if the batch ends meanwhile, its journal is deleted and the file is in the store
        with suppress(FileNotFoundError):
            return await run_in_threadpool(growing.content, server, offset)
    return await run_in_threadpool(stored_content, server, _find_file(server, file_id), offset)
