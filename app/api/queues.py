"""Routes for queues: what waits and runs in them, pause and resume, limits."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from app.api.access import actor_of, needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.errors import Problem
from app.api.insights import UNAVAILABLE
from app.api.openapi import json_body
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, QueuePatch
from app.api.tasks import WRONG
from app.core.errors import InvalidRequest
from app.core.keys import Scope
from app.services.limits import QueueReport
from app.services.wiring import Services

router = APIRouter(tags=["queues"], route_class=DirectRoute)

QueueName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such queue."}}
LIMITS = ("max_running", "rate_limit", "rate_period_seconds", "max_depth")


class QueueView(BaseModel):
    """One queue. `blocked` tasks wait for a place of their concurrency key; `oldest_age_seconds` is how long the first ready
    task has been ready. Limits that are null are none. `drained_per_second` is how many of its tasks have ended a second,
    over the last five minutes."""

    queue: str
    paused: bool
    ready: int
    blocked: int
    scheduled: int
    retrying: int
    running: int
    oldest_age_seconds: float | None
    max_running: int | None
    rate_limit: int | None
    rate_period_seconds: float | None
    max_depth: int | None
    drained_per_second: float


class QueueList(BaseModel):
    """Every queue that has unfinished tasks or was ever steered, by name."""

    items: list[QueueView]


@router.get("/queues", response_class=Response, responses={200: {"model": QueueList}, 503: UNAVAILABLE})
@needs(Scope.READ)
async def list_queues(request: Request) -> Response:
    """Depth, age and limits of each queue that has unfinished tasks, or that somebody has steered."""
    return _answer(
        {"items": [queue_view(report) for report in await _services(request).limits.listed(tenant_of(request))]}
    )


@router.get(
    "/queues/{name}",
    response_class=Response,
    responses={200: {"model": QueueView}, **MISSING, 422: WRONG[422], 503: UNAVAILABLE},
)
@needs(Scope.READ, whole=True)
async def read_queue(request: Request, name: QueueName) -> Response:
    """One queue."""
    return _answer(queue_view(await _services(request).limits.get(name)))


@router.post(
    "/queues/{name}/pause",
    response_class=Response,
    responses={200: {"model": QueueView}, 422: WRONG[422], 503: UNAVAILABLE},
)
@needs(Scope.MANAGE, whole=True)
async def pause_queue(request: Request, name: QueueName) -> Response:
    """Start none of its tasks from now on. What runs goes on, and what is submitted waits."""
    return await _changed(request, name, {"paused": True})


@router.post(
    "/queues/{name}/resume",
    response_class=Response,
    responses={200: {"model": QueueView}, 422: WRONG[422], 503: UNAVAILABLE},
)
@needs(Scope.MANAGE, whole=True)
async def resume_queue(request: Request, name: QueueName) -> Response:
    """Start its tasks again."""
    return await _changed(request, name, {"paused": False})


@router.patch(
    "/queues/{name}",
    response_class=Response,
    responses={200: {"model": QueueView}, **WRONG},
    openapi_extra=json_body("QueuePatch"),
)
@needs(Scope.MANAGE, whole=True)
async def change_queue(request: Request, name: QueueName) -> Response:
    """Pause it, resume it, or limit how many of its tasks run, start and wait. What is left out stays; null is no limit. A
    queue that does not exist yet is made."""
    settings = _services(request).settings
    patch = await read_json(request, QueuePatch, settings.max_body_bytes, settings.max_json_depth)
    return await _changed(request, name, _values(patch))


def _values(patch: QueuePatch) -> dict[str, Any]:
    """The columns to set. A rate is two numbers, which come and go together."""
    values = patch.model_dump(include=patch.model_fields_set)
    if not values:
        raise _wrong([], "There is nothing to change.")
    if "paused" in values and values["paused"] is None:
        raise _wrong(["paused"], "paused must be true or false.")
    limited = values.get("rate_limit") is not None
    if limited and values.get("rate_period_seconds") is None:
        values["rate_period_seconds"] = 1.0
    if not limited and values.get("rate_period_seconds") is not None:
        raise _wrong(["rate_period_seconds"], "rate_period_seconds needs a rate_limit beside it.")
    if "rate_limit" in values and not limited:
        values["rate_period_seconds"] = None
    elif "rate_period_seconds" in values and not limited:
        values["rate_limit"] = None
    return values


def _wrong(place: list[str], message: str) -> InvalidRequest:
    return InvalidRequest(message, [{"location": ["body", *place], "message": message, "type": "value_error"}])


async def _changed(request: Request, name: str, values: dict[str, Any]) -> Response:
    return _answer(queue_view(await _services(request).limits.change(name, values, actor_of(request))))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def queue_view(report: QueueReport) -> dict[str, Any]:
    """A `QueueView`."""
    depth, rule = report.depth, report.rule
    return {
        "queue": rule.name,
        "paused": rule.paused,
        "ready": depth.ready,
        "blocked": depth.blocked,
        "scheduled": depth.scheduled,
        "retrying": depth.retrying,
        "running": depth.running,
        "oldest_age_seconds": report.oldest_age_seconds,
        **{name: getattr(rule, name) for name in LIMITS},
        "drained_per_second": round(report.drained_per_second, 3),
    }


def _answer(content: object) -> Response:
    return JsonAnswer(orjson.dumps(content, option=OPTIONS))
