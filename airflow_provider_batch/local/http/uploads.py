"""`/v1/uploads`: files that are uploaded in parts, in any order and concurrently.

The behaviour follows OpenAI's API description and the docstrings of its SDK (`resources/uploads`). OpenAI has not
published its error messages for uploads; these follow its messages about files and batches. A batch input file has to
pass the checks of `files.create`: its name and size when the upload is created, its first line when it is completed.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from airflow_provider_batch.local.api.errors import ApiError, missing_parameter, out_of_range, wrong_type
from airflow_provider_batch.local.api.objects import FileObject, new_file_id
from airflow_provider_batch.local.http.file_check import (
    check_first_line,
    check_name_and_size,
    check_purpose,
    parse_file_lifetime,
)
from airflow_provider_batch.local.http.server import (
    ServerDependency,
    as_integer,
    read_json_object,
    reject_unknown,
    require_form,
)
from airflow_provider_batch.local.settings import MAX_PART_BYTES, MAX_UPLOAD_BYTES, UPLOAD_LIFETIME
from airflow_provider_batch.local.storage.upload_store import (
    Upload,
    UploadStatus,
    join_parts,
    new_part_id,
    new_upload_id,
)

if TYPE_CHECKING:
    from starlette.datastructures import UploadFile

router = APIRouter(prefix="/uploads")


@router.post("")
async def create(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Create an upload of up to 8 GB, which must be completed within an hour. Any `mime_type` is accepted."""
    body = await read_json_object(request)
    reject_unknown(body, {"bytes", "filename", "mime_type", "purpose", "expires_after"})
    for name in ("bytes", "filename", "mime_type", "purpose"):
        if body.get(name) is None:
            raise missing_parameter(name)
    for name in ("filename", "mime_type"):
        if not isinstance(body[name], str):
            raise wrong_type(name, "a string", body[name])
    size, policy = as_integer(body["bytes"]), body.get("expires_after")
    if size is None:
        raise wrong_type("bytes", "an integer", body["bytes"])
    error = out_of_range("bytes", "integer", size, 1, MAX_UPLOAD_BYTES)
    if error is not None:
        raise error
    if policy is not None and not isinstance(policy, dict):
        raise wrong_type("expires_after", "an object", policy)
    purpose = check_purpose(body["purpose"])
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
    server.uploads.add(upload, file_lifetime=parse_file_lifetime(policy, purpose))
    return _to_json(server, upload)


def _to_json(server: ServerDependency, upload: Upload) -> dict[str, Any]:
    wire: dict[str, Any] = msgspec.to_builtins(upload)
    if wire["file"] is None:
        # OpenAI's published samples of unfinished uploads have no `file`
        del wire["file"]
    else:
        wire["file"] = server.settings.dialect.rewrite_file(wire["file"])
    return wire


def _find_pending(server: ServerDependency, upload_id: str, action: str) -> Upload:
    """Return a pending upload. Respond with 404 if there is none, or 400 if `action` is no longer possible."""
    upload = server.uploads.upload(upload_id)
    if upload is None:
        raise ApiError(404, f"No such Upload object: {upload_id}", param="upload_id")
    if upload.status is not UploadStatus.PENDING:
        raise ApiError(400, f"Cannot {action} an upload with status '{upload.status}'.")
    if upload_id in server.uploads.completing:
        raise ApiError(400, f"Cannot {action} an upload that is being completed.")
    return upload


@router.post("/{upload_id}/parts")
async def add_part(upload_id: str, request: Request, server: ServerDependency) -> dict[str, Any]:
    """Add a part of up to 64 MB. All parts together can have up to 8 GB."""
    action = "add a part to"
    _find_pending(server, upload_id, action)
    require_form(request)
    # while a form arrives, Starlette spools everything beyond 1 MB to a temporary file
    async with request.form(max_files=1, max_fields=1) as form:
        data = form.get("data")
        if data is None:
            raise missing_parameter("data")
        source, size = _content(data)
        if size > MAX_PART_BYTES:
            raise ApiError(400, f"The part is too large: {size:,} of at most {MAX_PART_BYTES:,} bytes.", param="data")
        part_id = new_part_id()
        path = server.uploads.part_path(upload_id, part_id)
        with ExitStack() as undo:
            undo.callback(path.unlink, missing_ok=True)
            # while the part is being written, the upload may end and its folder be deleted, or other parts may arrive
            with suppress(FileNotFoundError):
                await run_in_threadpool(_save, source, path)
            _find_pending(server, upload_id, action)
            previous_bytes = sum(server.uploads.part_sizes(upload_id).values())
            if previous_bytes + size > MAX_UPLOAD_BYTES:
                raise ApiError(
                    400,
                    f"The parts are too large: this one has {size:,} bytes, the previous ones {previous_bytes:,},"
                    f" and at most {MAX_UPLOAD_BYTES:,} are allowed.",
                    param="data",
                )
            server.uploads.add_part(upload_id, part_id, size)
            undo.pop_all()
    return {"id": part_id, "object": "upload.part", "created_at": server.clock.seconds(), "upload_id": upload_id}


@router.post("/{upload_id}/complete")
async def complete(upload_id: str, request: Request, server: ServerDependency) -> dict[str, Any]:
    """Create a file from the listed parts, in that order. If a check fails, the upload stays pending."""
    upload = _find_pending(server, upload_id, "complete")
    body = await read_json_object(request)
    reject_unknown(body, {"part_ids", "md5"})
    part_ids, md5 = body.get("part_ids"), body.get("md5")
    if part_ids is None:
        raise missing_parameter("part_ids")
    if not isinstance(part_ids, list):
        raise wrong_type("part_ids", "an array", part_ids)
    if md5 is not None and not isinstance(md5, str):
        raise wrong_type("md5", "a string", md5)
    # The upload may have ended while the body arrived. From here to `completing.add`, no other task can run.
    _find_pending(server, upload_id, "complete")
    _check_parts(server, upload, part_ids)
    file_id = new_file_id()
    target = server.store.path(file_id)
    server.uploads.completing.add(upload_id)
    with ExitStack() as undo:
        undo.callback(target.unlink, missing_ok=True)
        try:
            paths = [server.uploads.part_path(upload_id, part_id) for part_id in part_ids]
            actual_md5 = await run_in_threadpool(join_parts, paths, target)
            if md5 is not None and md5.lower() != actual_md5:
                raise ApiError(400, f"The MD5 of the parts is {actual_md5}, not {md5} as requested.", param="md5")
            if upload.purpose == "batch":
                with open(target, "rb") as content:
                    await run_in_threadpool(check_first_line, content)
        finally:
            server.uploads.completing.discard(upload_id)
        now, lifetime = server.clock.seconds(), server.uploads.file_lifetime(upload_id)
        file = FileObject(
            id=file_id,
            bytes=upload.bytes,
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            filename=upload.filename,
            purpose=upload.purpose,
        )
        upload = server.uploads.complete(upload, file)
        undo.pop_all()
    return _to_json(server, upload)


def _check_parts(server: ServerDependency, upload: Upload, part_ids: list[Any]) -> None:
    sizes = server.uploads.part_sizes(upload.id)
    unique_ids = set[str]()
    for index, part_id in enumerate(part_ids):
        name = f"part_ids[{index}]"
        if not isinstance(part_id, str):
            raise wrong_type(name, "a string", part_id)
        if part_id not in sizes:
            raise ApiError(400, f"No such part of upload {upload.id}: {part_id}", param=name)
        if part_id in unique_ids:
            raise ApiError(400, f"The part {part_id} is listed twice.", param=name)
        unique_ids.add(part_id)
    size = sum(sizes[part_id] for part_id in unique_ids)
    if size != upload.bytes:
        raise ApiError(
            400, f"The parts have {size:,} bytes, but {upload.bytes:,} were declared when the upload was created."
        )


def _content(data: UploadFile | str) -> tuple[BinaryIO, int]:
    """Return a part's content and size. The SDK sends a part as a file, OpenAI's sample sends a plain field."""
    if isinstance(data, str):
        text = data.encode()
        return BytesIO(text), len(text)
    return data.file, data.size or 0


def _save(source: BinaryIO, path: Path) -> None:
    with open(path, "wb") as output:
        shutil.copyfileobj(source, output, 1 << 20)


@router.post("/{upload_id}/cancel")
async def cancel(upload_id: str, server: ServerDependency) -> dict[str, Any]:
    """Cancel an upload and delete its parts."""
    return _to_json(server, server.uploads.cancel(_find_pending(server, upload_id, "cancel")))
