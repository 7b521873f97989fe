"""Routes for files: they stream in, and out."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import IO, Annotated
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from app.api.access import actor_of, needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.errors import Problem, problem
from app.api.multipart import FileForm
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS
from app.api.tasks import CONFLICT, MISSING, WRONG
from app.core.errors import TooLarge
from app.core.file import FILE_ID, Role, StoredFile, served_as
from app.core.keys import Scope
from app.services.file_store import CHUNK_BYTES
from app.services.wiring import Services

router = APIRouter(tags=["files"], route_class=DirectRoute)

FORM_BYTES = 64 * 1024
"""What a form may have around its file."""
ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

FileId = Annotated[str, Path(pattern=FILE_ID, description="The `id` of an uploaded or produced file.")]
NO_FILE = {**MISSING, 404: {"model": Problem, "description": "There is no such file."}}


class FileView(BaseModel):
    """A stored file. It is kept while a task uses it; until then, and afterwards, it is deleted at `expires_at`."""

    id: str
    name: str = Field(description="What its sender called it: a label, never a path.")
    size: int = Field(description="Bytes.")
    content_type: str
    sha256: str = Field(description="Of its bytes, hexadecimal.")
    created_at: datetime
    expires_at: datetime | None


class TaskFileView(FileView):
    """A file of a task, and what it is to it."""

    role: Role


class TaskFileList(BaseModel):
    items: list[TaskFileView]


UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.post(
    "/files",
    status_code=201,
    response_class=Response,
    responses={201: {"model": FileView}, **{status: WRONG[status] for status in (413, 415, 422, 503)}},
    openapi_extra=UPLOAD,
)
@needs(Scope.SUBMIT)
async def upload_file(request: Request) -> Response:
    """Store one file (field `file`). The answer is sent after it is on disk; put its `id` into a payload."""
    services: Services = request.app.state.services
    form = FileForm(request.headers.get("content-type", ""))
    async with await services.files.receive(tenant_of(request)) as reception:
        async for chunk in _limited(request, services.settings.max_upload_bytes):
            await reception.write(form.feed(chunk))
        form.finish()
        file = await reception.finish(form.name, form.content_type)
    return JsonAnswer(orjson.dumps(_view(file), option=OPTIONS), 201, (b"location", f"/files/{file.id}".encode()))


async def _limited(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body's chunks. Raises TooLarge, at its head where that says so, for what cannot be within the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limit_bytes + FORM_BYTES:
        raise TooLarge("file", limit_bytes)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes + FORM_BYTES:
            raise TooLarge("file", limit_bytes)
        yield chunk


@router.get(
    "/files/{file_id}",
    response_class=Response,
    responses={
        200: {"description": "Its bytes, as an attachment.", "content": {"application/octet-stream": {}}},
        206: {"description": "The range of bytes that was asked for."},
        304: {},
        416: {"model": Problem, "description": "The range lies outside the file."},
        **NO_FILE,
    },
)
@needs(Scope.READ)
async def download_file(request: Request, file_id: FileId) -> Response:
    """The file's bytes, or one range of them. HEAD tells its size, type and SHA-256 (in the ETag)."""
    services: Services = request.app.state.services
    file = await services.files.get(file_id, tenant_of(request))
    tag = f'"{file.sha256}"'
    headers = _headers(file, tag)
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag})
    span = 0, file.size - 1
    wanted = _wanted(request.headers.get("range", "")) if request.headers.get("if-range", tag) == tag else None
    if wanted is not None:
        first, last = wanted(file.size)
        if first > last:
            detail = f"The file has {file.size} bytes; the range lies outside."
            outside = {"Content-Range": f"bytes */{file.size}"}
            return problem(request, 416, "range-not-satisfiable", detail, headers=outside)
        span = first, last
        headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
    headers["Content-Length"] = str(span[1] - span[0] + 1)
    stream = await services.files.open(file_id)
    status = 200 if wanted is None else 206
    return StreamingResponse(_chunks(stream, *span), status, headers, served_as(file.content_type))


def _headers(file: StoredFile, tag: str) -> dict[str, str]:
    """A file comes from a stranger: no browser shall show it, run it, or guess what it is."""
    ascii_name = re.sub(r"[^A-Za-z0-9._ -]", "_", file.name)
    return {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(file.name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-cache",
    }


def _wanted(header: str) -> Callable[[int], tuple[int, int]] | None:
    """Given a file's size, the first and last byte of the one range that is asked for; None for anything else, which
    RFC 9110 lets a server ignore: then the whole file is sent."""
    found = ONE_RANGE.fullmatch(header)
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":  # the last so many
        return lambda size: (max(0, size - int(found[2])), size - 1)
    first, last = int(found[1]), int(found[2] or "9" * 18)
    return None if last < first else lambda size: (first, min(last, size - 1))


async def _chunks(stream: IO[bytes], first: int, last: int) -> AsyncIterator[bytes]:
    try:
        await asyncio.to_thread(stream.seek, first)
        left = last - first + 1
        while left > 0 and (chunk := await asyncio.to_thread(stream.read, min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    finally:
        stream.close()


@router.delete("/files/{file_id}", status_code=204, response_class=Response, responses={**NO_FILE, **CONFLICT})
@needs(Scope.MANAGE)
async def delete_file(request: Request, file_id: FileId) -> Response:
    """Delete a file that no task keeps."""
    services: Services = request.app.state.services
    await services.files.delete(file_id, tenant_of(request), actor_of(request))
    return Response(status_code=204)


@router.get("/tasks/{task_id}/files", response_class=Response, responses={200: {"model": TaskFileList}, **MISSING})
@needs(Scope.READ)
async def list_task_files(request: Request, task_id: int) -> Response:
    """The files a task keeps: those its payload names and those its attempts saved. They are deleted with it."""
    services: Services = request.app.state.services
    task = await services.tasks.get(task_id, tenant_of(request))
    items = [_view(file) | {"role": role} for file, role in await services.files.of_task(task.id)]
    return JsonAnswer(orjson.dumps({"items": items}, option=OPTIONS))


def _view(file: StoredFile) -> dict[str, object]:
    return {name: getattr(file, name) for name in FileView.model_fields}
