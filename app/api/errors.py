"""Errors as RFC 9457 problems: the only place that knows which error is which status."""

from http import HTTPStatus
from math import ceil
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from app.core import errors
from app.core.events import StoreTroubled
from app.core.logger import structlog
from app.services.submissions import MOST_FAULTS
from app.services.wiring import Services

STATUS: dict[type[errors.AppError], tuple[int, str]] = {
    errors.MalformedJson: (400, "malformed-json"),
    errors.UnknownTaskType: (422, "unknown-task-type"),
    errors.PayloadInvalid: (422, "payload-invalid"),
    errors.InvalidRequest: (422, "invalid-request"),
    errors.KeyEnded: (401, "unauthorized"),
    errors.Forbidden: (403, "forbidden"),
    errors.NotFound: (404, "not-found"),
    errors.UniqueKeyTaken: (409, "unique-key-taken"),
    errors.IdempotencyMismatch: (422, "idempotency-mismatch"),
    errors.Conflict: (409, "conflict"),
    errors.TooLarge: (413, "too-large"),
    errors.UnsupportedMediaType: (415, "unsupported-media-type"),
    errors.QuotaExceeded: (429, "quota-exceeded"),
    errors.QueueFull: (429, "queue-full"),
    errors.Overloaded: (503, "overloaded"),
    errors.StoreUnavailable: (503, "store-unavailable"),
    errors.StoreFull: (507, "insufficient-storage"),
}
CHALLENGE = "Bearer"
TRY_AGAIN_SECONDS = {429: 5, 503: 2, 507: 10}
"""What `Retry-After` says where the error does not. A disk that is full is so until somebody has made room."""
LONGEST_RETRY_AFTER_SECONDS = 300


class Problem(BaseModel):
    """What every error looks like (RFC 9457)."""

    type: str = Field(description="Which kind of problem, as a URN that does not change.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    errors: list[dict[str, Any]] | None = Field(None, description="One entry for each fault: location, message, type.")


def problem(
    request: Request,
    status: int,
    slug: str,
    detail: str,
    extra: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem document as an answer. Members of `extra` that are None are left out."""
    body = {
        "type": f"urn:task-service:problem:{slug}",
        "title": _phrase(status),
        "status": status,
        "detail": detail,
        "instance": _asked_for(request),
    }
    body |= {name: value for name, value in (extra or {}).items() if value is not None}
    return Response(orjson.dumps(body, default=str), status, headers, "application/problem+json")


def _phrase(status: int) -> str:
    """The status's name by RFC 9110; before Python 3.13 the standard library has older ones for two of them."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def _asked_for(request: Request) -> str:
    """The path as it came, before anything was made of it."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode("utf-8", "replace")
    return raw.decode("ascii", "replace")


def add_error_handlers(app: FastAPI) -> None:
    """Turn our errors, validation errors, unknown paths and bugs into problems."""
    app.add_exception_handler(errors.AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _hung_up)
    app.add_exception_handler(Exception, _bug)


async def _app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.AppError)
    status, slug = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), (500, "internal"))
    headers = {"WWW-Authenticate": CHALLENGE} if status == 401 else {}
    if status in TRY_AGAIN_SECONDS:
        headers["Retry-After"] = str(_retry_after(error, status))
    if isinstance(error, errors.StoreUnavailable):
        services: Services = request.app.state.services
        services.bus.publish(StoreTroubled(f"answer {request.method}", str(error)))
    extra = {
        "errors": [_in_request(fault) for fault in getattr(error, "errors", ())[:MOST_FAULTS]] or None,
        "task_status": getattr(error, "status", None),
        "holder_id": getattr(error, "holder_id", None),
        "known": getattr(error, "known", None),
        "limit_bytes": getattr(error, "limit_bytes", None),
        "queue": getattr(error, "queue", None),
        "max_depth": getattr(error, "max_depth", None),
    }
    return problem(request, status, slug, str(error), extra, headers)


def _retry_after(error: errors.AppError, status: int) -> int:
    """Whole seconds after which trying again may work."""
    seconds = getattr(error, "retry_after_seconds", None) or TRY_AGAIN_SECONDS[status]
    return min(LONGEST_RETRY_AFTER_SECONDS, max(1, ceil(seconds)))


def _in_request(fault: dict[str, Any]) -> dict[str, Any]:
    """Services locate faults in what they were given; for a client that was the body."""
    place = fault["location"]
    return fault if place[:1] in (["body"], ["query"], ["header"]) else fault | {"location": ["body", *place]}


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"location": list(fault["loc"]), "message": fault["msg"], "type": fault["type"]}
        for fault in error.errors()[:MOST_FAULTS]
    ]
    where = ".".join(str(part) for part in faults[0]["location"][1:])
    return problem(request, 422, "invalid-request", f"{where}: {faults[0]['message']}", {"errors": faults})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 404 and detail == "Not Found":
        detail = f"There is nothing at {_asked_for(request)}. See / for what there is."
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"{request.method} is not possible here; {headers['Allow']} is."
    slug = _phrase(error.status_code).lower().replace(" ", "-")
    return problem(request, error.status_code, slug, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """Every method of the path: the router itself names those of its first route alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in fitting for method in route.methods or ()})


async def _hung_up(request: Request, error: Exception) -> Response:
    return problem(request, 400, "client-hung-up", "The connection ended before the body did.")


async def _bug(request: Request, error: Exception) -> Response:
    structlog.get_logger("app.api").error("a request failed", path=request.url.path, exc_info=error)
    return problem(request, 500, "internal", "Something went wrong here; it was logged.")
