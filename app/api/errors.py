"""Errors as RFC 9457 problems: the only place that knows which error is which status."""

from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.core import errors

STATUS: dict[type[errors.AppError], tuple[int, str]] = {
    errors.MalformedJson: (400, "malformed-json"),
    errors.UnknownTaskType: (422, "unknown-task-type"),
    errors.PayloadInvalid: (422, "payload-invalid"),
    errors.InvalidRequest: (422, "invalid-request"),
    errors.NotFound: (404, "not-found"),
    errors.UniqueKeyTaken: (409, "unique-key-taken"),
    errors.IdempotencyMismatch: (422, "idempotency-mismatch"),
    errors.Conflict: (409, "conflict"),
    errors.TooLarge: (413, "too-large"),
    errors.UnsupportedMediaType: (415, "unsupported-media-type"),
    errors.Overloaded: (503, "overloaded"),
    errors.StoreUnavailable: (503, "store-unavailable"),
}
TRY_AGAIN_SECONDS = 2


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
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    body |= {name: value for name, value in (extra or {}).items() if value is not None}
    # What was asked for is echoed; orjson refuses the surrogates a percent-encoded path can smuggle in.
    content = orjson.dumps(body, default=str)
    return Response(content, status, {**(headers or {})}, "application/problem+json")


def add_error_handlers(app: FastAPI) -> None:
    """Turn our errors, validation errors, unknown paths and bugs into problems."""
    app.add_exception_handler(errors.AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


async def _app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.AppError)
    status, slug = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), (500, "internal"))
    headers = {"Retry-After": str(TRY_AGAIN_SECONDS)} if status == 503 else None
    extra = {
        "errors": getattr(error, "errors", None) or None,
        "task_status": getattr(error, "status", None),
        "holder_id": getattr(error, "holder_id", None),
        "known": getattr(error, "known", None),
        "limit_bytes": getattr(error, "limit_bytes", None),
    }
    return problem(request, status, slug, str(error), extra, headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"location": list(fault["loc"]), "message": fault["msg"], "type": fault["type"]} for fault in error.errors()
    ]
    where = ".".join(str(part) for part in faults[0]["location"][1:])
    return problem(request, 422, "invalid-request", f"{where}: {faults[0]['message']}", {"errors": faults})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404 and detail == "Not Found":
        detail = f"There is nothing at {request.url.path}. See / for what there is."
    if error.status_code == 405:
        detail = f"{request.method} is not possible here."
    slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return problem(request, error.status_code, slug, detail, headers=dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    structlog.get_logger("app.api").error("a request failed", path=request.url.path, exc_info=error)
    return problem(request, 500, "internal", "Something went wrong here; it was logged.")
