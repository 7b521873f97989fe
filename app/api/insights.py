"""Routes that show what there is: task types, queues, workers, numbers."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api.errors import Problem
from app.api.schemas import OPTIONS, RetryView
from app.core.errors import NotFound
from app.core.settings import Settings
from app.services.executors import Executor
from app.services.wiring import Services

router = APIRouter(tags=["insights"])

UNAVAILABLE: dict[str, Any] = {
    "model": Problem,
    "description": "The store is not available; try again after Retry-After seconds.",
}


class TaskTypeView(BaseModel):
    """One kind of work: what it takes, and how it is treated by default. `shared` ones run side by side."""

    task_type: str
    description: str
    max_attempts: int
    timeout_seconds: float
    retry: RetryView
    shared: bool
    payload_schema: dict[str, Any]
    example: dict[str, Any] | None


class QueueView(BaseModel):
    """What waits and runs in one queue; `oldest_age_seconds` is how long the first ready task has been ready."""

    queue: str
    ready: int
    scheduled: int
    retrying: int
    running: int
    oldest_age_seconds: float | None


class WorkerView(BaseModel):
    """A worker process. No `queues` means every queue. `running` lists what is in its runners."""

    id: str
    name: str
    host: str
    pid: int
    state: str
    queues: list[str]
    task_types: list[str]
    slots: int
    running: list[dict[str, Any]]
    started_at: datetime
    beat_at: datetime


class StatsView(BaseModel):
    """Tasks by state now, and those that ended within the last hour."""

    ready: int
    scheduled: int
    retrying: int
    running: int
    completed: int
    failed: int
    cancelled: int
    completed_last_hour: int
    failed_last_hour: int
    oldest_ready_at: datetime | None
    live_workers: int


class TaskTypeList(BaseModel):
    items: list[TaskTypeView]


class QueueList(BaseModel):
    items: list[QueueView]


class WorkerList(BaseModel):
    items: list[WorkerView]


def _answer(content: object) -> Response:
    return Response(orjson.dumps(content, option=OPTIONS), media_type="application/json")


@router.get("/task-types", response_class=Response, responses={200: {"model": TaskTypeList}})
async def list_task_types(request: Request) -> Response:
    """What kinds of work there are, each with the JSON Schema of its payload and an example."""
    return _answer({"items": list(_type_views(request).values())})


@router.get(
    "/task-types/{task_type}",
    response_class=Response,
    responses={
        200: {"model": TaskTypeView},
        404: {"model": Problem, "description": "There is no such task type."},
        422: {"model": Problem, "description": "The request does not fit."},
    },
)
async def read_task_type(request: Request, task_type: str) -> Response:
    """One kind of work."""
    view = _type_views(request).get(task_type)
    if view is None:
        raise NotFound("task type", task_type)
    return _answer(view)


def _type_views(request: Request) -> dict[str, orjson.Fragment]:
    """A `TaskTypeView` for each task type, as JSON: made at the first request, since a process never learns new ones."""
    state = request.app.state
    if not hasattr(state, "type_views"):
        services: Services = state.services
        state.type_views = {
            task_type: orjson.Fragment(orjson.dumps(_type_view(executor, services.settings)))
            for task_type, executor in services.registry.items()
        }
    views: dict[str, orjson.Fragment] = state.type_views
    return views


def _type_view(executor: Executor, settings: Settings) -> dict[str, Any]:
    return {
        "task_type": executor.task_type,
        "description": executor.description,
        "max_attempts": executor.max_attempts or settings.max_attempts,
        "timeout_seconds": float(executor.timeout_seconds or settings.timeout_seconds),
        "retry": asdict(executor.retry or settings.retry_policy),
        "shared": executor.shares_runner,
        "payload_schema": _fragment(executor.payload_schema),
        "example": None if executor.example is None else _fragment(dict(executor.example)),
    }


def _fragment(content: dict[str, Any]) -> orjson.Fragment:
    # By the slower library, because the faster one takes no integers beyond 64 bits, which a schema may have.
    return orjson.Fragment(json.dumps(content, separators=(",", ":")))


@router.get("/queues", response_class=Response, responses={200: {"model": QueueList}, 503: UNAVAILABLE})
async def list_queues(request: Request) -> Response:
    """Depth and age of each queue that has unfinished tasks."""
    services: Services = request.app.state.services
    now = services.database.clock()()
    items = [
        {
            "queue": depth.queue,
            "ready": depth.ready,
            "scheduled": depth.scheduled,
            "retrying": depth.retrying,
            "running": depth.running,
            "oldest_age_seconds": (
                max(0.0, (now - depth.oldest_ready_at).total_seconds()) if depth.oldest_ready_at else None
            ),
        }
        for depth in await services.insights.queues()
    ]
    return _answer({"items": items})


@router.get("/workers", response_class=Response, responses={200: {"model": WorkerList}, 503: UNAVAILABLE})
async def list_workers(request: Request) -> Response:
    """The workers that were heard of lately, and what each one runs."""
    services: Services = request.app.state.services
    fields = [name for name in WorkerView.model_fields if name != "running"]
    items = [
        {name: getattr(worker, name) for name in fields} | {"running": orjson.Fragment(worker.running)}
        for worker in await services.insights.workers()
    ]
    return _answer({"items": items})


@router.get("/stats", response_class=Response, responses={200: {"model": StatsView}, 503: UNAVAILABLE})
async def read_stats(request: Request) -> Response:
    """Totals over all queues."""
    services: Services = request.app.state.services
    return _answer(await services.insights.stats())
