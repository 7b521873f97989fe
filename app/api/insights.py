"""Routes that show what there is: task types, workers, numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.access import needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.errors import Problem
from app.api.query import Moment, Name, refuse_unknown_query
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, RetryView
from app.core.errors import Forbidden, InvalidRequest, NotFound
from app.core.keys import Scope
from app.core.settings import Settings
from app.core.tally import COUNTS, Durations, Tally, total
from app.models.tallies import Step
from app.services.executors import Executor
from app.services.insights import WorkerReport
from app.services.tallies import Tallies
from app.services.wiring import Services

router = APIRouter(tags=["insights"], route_class=DirectRoute)

LONGEST_RANGE = timedelta(days=31)
STEPS = (60, 300, 900, 3600, 6 * 3600, 86400)
USUAL_POINTS, MOST_POINTS, MOST_ROWS = 200, 1500, 20_000
RANGE_OPTIONS = ("step", "by", "queue", "task_type")

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


class RunnerView(BaseModel):
    """A process that runs executors: the memory it has in use with all that it has started, and the tasks it runs."""

    pid: int
    memory_bytes: int
    task_ids: list[int]


class RoomView(BaseModel):
    """How many more attempts a worker could take now: of plain executors (`def`), each of which has a runner to itself, or of
    shared ones (`async def`); of both together fewer."""

    plain: int
    shared: int


class WorkerView(BaseModel):
    """A worker process. No `queues` means every queue. `running` lists what is in its runners. `memory_bytes` is what it and
    its runners have in use, null where its system does not say. All of it is as of `beat_at`, but for `state`, which is
    `silent` once a beat is overdue, `silent_seconds`: for how long it has not been heard of then, null while it beats, and
    `room`, which goes by what it holds now, and is null where its runners are not known. `slots` are attempts of shared
    executors; a plain one takes all those of a runner."""

    id: str
    name: str
    host: str
    pid: int
    state: Literal["running", "stopping", "failing", "silent"]
    silent_seconds: float | None
    queues: list[str]
    task_types: list[str]
    slots: int
    room: RoomView | None
    running: list[dict[str, Any]]
    memory_bytes: int | None
    runners: list[RunnerView]
    started_at: datetime
    beat_at: datetime


class DurationsView(BaseModel):
    """How long something took, in seconds: how often it was measured, the mean, and what half, 95 and 99 of a hundred stayed
    below, to the width of a bucket. Null where nothing was measured."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class TallyView(BaseModel):
    """What happened. `retried` are attempts after which another one was to come; `wait_seconds` is from being ready to the
    start of an attempt, `run_seconds` that of an attempt."""

    submitted: int
    completed: int
    failed: int
    retried: int
    cancelled: int
    wait_seconds: DurationsView
    run_seconds: DurationsView


class PointView(TallyView):
    """What happened in the step that begins `at`."""

    at: datetime


class SeriesView(BaseModel):
    """What happened to one queue, task type, or pair of both; null where it is not told apart. Steps in which nothing happened
    are left out; `total` is all of them together."""

    queue: str | None
    task_type: str | None
    total: TallyView
    points: list[PointView]


class RangeView(BaseModel):
    """What happened between two moments, by steps that begin at multiples of their length (UTC)."""

    begins_at: datetime
    ends_at: datetime
    step_seconds: int
    series: list[SeriesView]


class StatsView(BaseModel):
    """Tasks by state now, and those that ended within the last hour. `range` is what happened between `from` and `to`, null
    where it was not asked for."""

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
    range: RangeView | None


class TaskTypeList(BaseModel):
    items: list[TaskTypeView]


class WorkerList(BaseModel):
    items: list[WorkerView]


def _answer(content: object) -> Response:
    return JsonAnswer(orjson.dumps(content, option=OPTIONS))


@router.get("/task-types", response_class=Response, responses={200: {"model": TaskTypeList}})
@needs(Scope.READ)
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
@needs(Scope.READ)
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
            for task_type, executor in services.registry.offered.items()
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


@router.get("/workers", response_class=Response, responses={200: {"model": WorkerList}, 503: UNAVAILABLE})
@needs(Scope.READ, whole=True)
async def list_workers(request: Request) -> Response:
    """The workers that were heard of lately, and what each one runs."""
    services: Services = request.app.state.services
    return _answer({"items": [_worker_view(worker) for worker in await services.insights.workers_with_room()]})


def _worker_view(worker: WorkerReport) -> dict[str, Any]:
    view = {name: getattr(worker.row, name, None) for name in WorkerView.model_fields}
    silent = worker.silent_seconds
    return view | {
        "state": worker.state,
        "room": worker.room,
        "silent_seconds": None if silent is None else round(silent, 1),
        "running": orjson.Fragment(worker.row.running),
        "runners": orjson.Fragment(worker.row.runners),
    }


@router.get(
    "/stats",
    response_class=Response,
    responses={
        200: {"model": StatsView},
        422: {"model": Problem, "description": "The request does not fit."},
        503: UNAVAILABLE,
    },
)
@needs(Scope.READ)
async def read_stats(
    request: Request,
    begins_at: Annotated[Moment | None, Query(alias="from", description="Show what happened since then.")] = None,
    ends_at: Annotated[Moment | None, Query(alias="to", description="Up to then; by default now.")] = None,
    step: Annotated[
        int | None, Query(ge=60, le=86400, multiple_of=60, description="Seconds of a step; by default as fits.")
    ] = None,
    by: Annotated[
        str | None, Query(pattern="^(queue|task_type)(,(queue|task_type))?$", description="queue, task_type or both.")
    ] = None,
    queue: Name | None = None,
    task_type: Name | None = None,
) -> Response:
    """Totals over all queues now; with `from`, also what happened in a time of up to 31 days."""
    refuse_unknown_query(request, "from", "to", *RANGE_OPTIONS)
    services: Services = request.app.state.services
    tenant = tenant_of(request)
    content = {**asdict(await services.insights.stats(tenant)), "range": None}
    if begins_at is not None:
        if tenant:
            raise Forbidden(f"What happened is counted for the whole service; your key is for tenant {tenant} alone.")
        now = services.database.clock()()
        wanted = _wanted(begins_at, ends_at or now, step)
        told_apart = sorted(set(by.split(","))) if by else []
        content["range"] = await _range(services.tallies, wanted, told_apart, queue, task_type)
    elif request.scope["query_string"]:
        raise _wrong("from", "from: say since when; the other parameters are about that time.")
    return _answer(content)


def _wanted(begins_at: datetime, ends_at: datetime, step: int | None) -> tuple[datetime, datetime, int]:
    """The range in UTC, and its step. Raises InvalidRequest for one that is empty, too long, or has too many steps."""
    try:
        begins_at, ends_at = begins_at.astimezone(UTC), ends_at.astimezone(UTC)
        seconds = (ends_at - begins_at).total_seconds()
    except OverflowError:
        raise _wrong("from", "from: no such time was ever counted.") from None
    if seconds <= 0:
        raise _wrong("to", "to: must be later than from.")
    if seconds > LONGEST_RANGE.total_seconds():
        raise _wrong("from", "from: at most 31 days are shown at once.")
    if step is None:
        step = next((one for one in STEPS if seconds / one <= USUAL_POINTS), STEPS[-1])
    if seconds / step > MOST_POINTS:
        raise _wrong("step", f"step: so many steps are too many; at most {MOST_POINTS} are shown.")
    return begins_at, ends_at, step


async def _range(
    tallies: Tallies,
    wanted: tuple[datetime, datetime, int],
    by: Sequence[str],
    queue: str | None,
    task_type: str | None,
) -> dict[str, Any]:
    begins_at, ends_at, step = wanted
    found = await tallies.summed(begins_at, ends_at, step, by, queue=queue, task_type=task_type, most=MOST_ROWS + 1)
    if len(found) > MOST_ROWS:
        raise _wrong("by", f"by: more than {MOST_ROWS} points; ask for longer steps, or for one queue or task type.")
    series: dict[tuple[str | None, str | None], list[Step]] = {}
    for one in found:
        series.setdefault((one.queue, one.task_type), []).append(one)
    shown = [
        {
            "queue": its_queue,
            "task_type": its_type,
            "total": _tally(total([one.tally for one in steps])),
            "points": [{"at": one.begins_at, **_tally(one.tally)} for one in steps],
        }
        for (its_queue, its_type), steps in sorted(series.items(), key=lambda item: [name or "" for name in item[0]])
    ]
    return {"begins_at": begins_at, "ends_at": ends_at, "step_seconds": step, "series": shown}


def _tally(tally: Tally) -> dict[str, Any]:
    counts = {name: getattr(tally, name) for name in COUNTS}
    return {**counts, "wait_seconds": _durations(tally.wait), "run_seconds": _durations(tally.run)}


def _durations(durations: Durations) -> dict[str, Any]:
    quantiles = {f"p{part}": _rounded(durations.quantile(part / 100)) for part in (50, 95, 99)}
    return {"count": durations.count, "mean": _rounded(durations.mean), **quantiles}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _wrong(parameter: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, [{"location": ["query", parameter], "message": message, "type": "value_error"}])
