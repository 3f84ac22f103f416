"""Serves the files of the page, which Airflow's UI loads as they are.

They contain no data, so nobody needs to be logged in to read them, as with the files of Airflow's own UI.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

router = APIRouter()

#: Types by the end of the name. `mimetypes` depends on the machine, and a browser runs no module of another type.
_TYPES = {".js": "application/javascript", ".svg": "image/svg+xml"}


@cache
def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Return the content, the type and the tag of each file, by name."""
    files = {}
    for file in resources.files(__package__).joinpath("ui").iterdir():
        media_type = _TYPES.get(file.name[file.name.rfind(".") :])
        if media_type:
            content = file.read_bytes()
            files[file.name] = content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return files


@router.get("/ui/{name}")
async def asset(name: str, request: Request) -> Response:
    """Return a file of the page. A browser asks each time whether it has changed, so it never mixes two versions."""
    if name not in _assets():
        raise HTTPException(404, "The page has no such file.")
    content, media_type, tag = _assets()[name]
    headers = {"Cache-Control": "no-cache", "ETag": tag, "X-Content-Type-Options": "nosniff"}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
