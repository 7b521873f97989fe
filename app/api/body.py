"""How request bodies come in: counted while they stream, parsed strictly, validated against a model."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from app.core import strict_json
from app.core.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from app.services.submissions import located_faults

Model = TypeVar("Model", bound=BaseModel)

LONG_BYTES = 256 * 1024
"""Bodies above this are parsed in a thread, so that one does not hold up every other request."""
_parsers = ThreadPoolExecutor(2, "long-bodies")
"""Few: what is parsed takes twenty times the room of its text, and Python runs one of them at a time in any case."""


def _anything(value: object) -> None:
    return


async def read_json(
    request: Request,
    model: type[Model],
    limit_bytes: int,
    max_depth: int,
    check: Callable[[object], None] = _anything,
) -> Model:
    """The body as `model`. `check` is shown the bare value before the model is, for what a model finds out late or at length.
    Raises UnsupportedMediaType, TooLarge, MalformedJson or InvalidRequest."""
    declared = header(request, b"content-type") or b""
    media_type = declared.split(b";", 1)[0].strip().lower()
    if media_type != b"application/json" and not media_type.endswith(b"+json"):
        shown = media_type.decode("latin-1") or "nothing"
        raise UnsupportedMediaType(f"Send the body as Content-Type: application/json (it was declared {shown}).")
    raw = await _read(request, limit_bytes)
    if len(raw) > LONG_BYTES:
        return await asyncio.get_running_loop().run_in_executor(_parsers, parse_json, raw, model, max_depth, check)
    return parse_json(raw, model, max_depth, check)


def header(request: Request, name: bytes) -> bytes | None:
    """The first header of that lower-case name, as it came; None if there is none."""
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    for key, value in headers:
        if key == name:
            return value
    return None


async def _read(request: Request, limit_bytes: int) -> bytes:
    declared = header(request, b"content-length") or b""
    if declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise TooLarge("body", limit_bytes)
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge("body", limit_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def parse_json(raw: bytes, model: type[Model], max_depth: int, check: Callable[[object], None] = _anything) -> Model:
    """`raw` as `model`: first the strict grammar, then pydantic's own JSON mode, which keeps types strict."""
    check(strict_json.parse(raw, max_depth))
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        faults = located_faults(error, ["body"])
        where = ".".join(str(part) for part in faults[0]["location"][1:]) or "body"
        raise InvalidRequest(f"{where}: {faults[0]['message']}", faults) from None
