"""One call of another host, from what a payload asks to what is stored of the answer, or to what is raised."""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from app.core.clock import system_clock
from app.core.errors import OutboundRefused
from app.core.secrets import Redactor
from app.core.trace import Trace
from app.services.executors import Fail, Retry
from app.services.outbound import TEMPORARY, Guard, Incoming, Outgoing
from app.workers.ai.refusals import retry_after

SHOWN_HEADERS = frozenset(
    [
        *("age", "allow", "cache-control", "content-disposition", "content-encoding", "content-language"),
        *("content-location", "content-type", "date", "etag", "expires", "idempotency-replayed", "last-modified"),
        *("link", "location", "retry-after", "vary", "x-request-id"),
    ]
)
"""Of an answer; others, cookies among them, are not for those who read tasks."""
LONGEST_SHOWN_HEADER = 1000
LONGEST_EXCERPT = 300


class UnexpectedStatus(Exception):
    """The host answered with a status that may be another one next time."""


async def call(
    guard: Guard,
    request: Outgoing,
    trace: Trace | None,
    expected: Sequence[int] | None,
    redact: Redactor,
    final: Collection[int] | None = None,
) -> Incoming:
    """Call, as a part of the trace if there is one. The answer, if its status is an expected one (None: any 2xx); `final` are
    those after which nothing is tried again, None for all but the usual temporary ones. Raises Fail where another try would
    end alike, Retry where the host says when, OutboundFailed or UnexpectedStatus otherwise: by these, and their messages, the
    worker knows what an attempt says of the host (`services/breakers.py`).
    """
    try:
        destination = guard.check(request.url)
    except OutboundRefused as refused:
        raise Fail(str(refused)) from None
    if trace is not None:
        request = with_headers(request, trace.headers)
    try:
        answer = await guard.send(request)
    except OutboundRefused as refused:
        raise Fail(str(refused)) from None
    if answer.status in expected if expected is not None else 200 <= answer.status < 300:
        return answer
    raise _unexpected(answer, f"{destination.shown} answered {_told(answer.status)}{_excerpt(answer, redact)}", final)


def _unexpected(answer: Incoming, message: str, final: Collection[int] | None) -> Exception:
    temporary = answer.status in TEMPORARY or answer.status >= 500
    if answer.status in final if final is not None else not temporary:
        return Fail(message)
    seconds = retry_after({"Retry-After": answer.header("retry-after") or ""}, system_clock())
    return UnexpectedStatus(message) if seconds is None else Retry(seconds, message)


def _told(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _excerpt(answer: Incoming, redact: Redactor) -> str:
    most = 4 * LONGEST_EXCERPT + redact.longest
    clean = redact.beginning if answer.truncated or len(answer.body) > most else redact
    line = _one_line(clean(answer.body[:most].decode(errors="replace")))
    # First redacted, then cut: half a secret is no longer found. And again, since in one line it may look otherwise.
    shown = redact.message(clean(line))[:LONGEST_EXCERPT]
    return f": {shown}" if shown else "."


def _one_line(text: str) -> str:
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def described(answer: Incoming, most_bytes: int, most_as_json: int, redact: Redactor) -> dict[str, Any]:
    """What is stored of an answer: status, address, some headers, `most_bytes` of the body as text or else in base64. At most
    about `most_as_json` as JSON. A host may say back what it was sent, so it is redacted."""
    body, truncated = _beginning(answer, most_bytes, redact)
    headers = {name: redact(value)[:LONGEST_SHOWN_HEADER] for name, value in answer.headers if name in SHOWN_HEADERS}
    text = _text(body, most_as_json)
    return {
        "status": answer.status,
        "url": redact(answer.url),
        "headers": headers,
        "body": text,
        "body_base64": base64.b64encode(body).decode() if text is None else None,
        "truncated": truncated,
    }


def _beginning(answer: Incoming, most_bytes: int, redact: Redactor) -> tuple[bytes, bool]:
    """The body, redacted and then cut, and whether there was more."""
    clean = redact.beginning if answer.truncated else redact
    # As Latin-1 every byte is a character and comes back as it was, whatever the body is.
    body = clean(answer.body.decode("latin-1")).encode("latin-1")
    return body[:most_bytes], answer.truncated or len(body) > most_bytes


def _text(body: bytes, most_bytes: int) -> str | None:
    """The body as text, None where it is none that can be stored, or one that JSON would blow up."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data" or error.end != len(body):
            return None
        text = body[: error.start].decode()  # cut in the middle of a character
    if "\0" in text or len(json.dumps(text, ensure_ascii=False).encode()) > most_bytes:
        return None
    return text


def with_headers(request: Outgoing, headers: Mapping[str, str]) -> Outgoing:
    """The request with these headers too; what it has already, in any case of letters, stays."""
    given = {name.lower() for name in request.headers}
    added = {name: value for name, value in headers.items() if name.lower() not in given}
    return replace(request, headers={**request.headers, **added})
