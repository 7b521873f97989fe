"""Routes for tasks. Each reads what it was asked, calls one use case, and shows what came back."""

import asyncio
import hashlib
import re
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response

from app.api.access import CALLER, actor_of, needs, still_welcome, tenant_of
from app.api.answer import JsonAnswer
from app.api.body import header, read_json
from app.api.errors import Problem, problem
from app.api.insights import UNAVAILABLE
from app.api.openapi import json_body
from app.api.query import Moment, Name, decoded_cursor, encoded_cursor, refuse_unknown_query, words_of
from app.api.routes import DirectRoute
from app.api.schemas import (
    AttemptList,
    BulkAnswer,
    BulkSubmission,
    LogList,
    Pending,
    TaskPage,
    TaskPatch,
    TaskView,
    attempts_json,
    logs_json,
    page_json,
    task_json,
)
from app.core.errors import InvalidRequest, KeyEnded
from app.core.keys import Scope
from app.core.lifecycle import Edit
from app.core.task import LARGEST_INTEGER, Status, Task
from app.core.trace import Trace, trace_of
from app.models.tasks import TaskFilter
from app.services.submissions import Submission, metadata_text, priority_number
from app.services.wiring import Services

router = APIRouter(tags=["tasks"], route_class=DirectRoute)

JSON = "application/json"
IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
REPEATABLE = {"pattern": "^[!-~]{1,255}$", "description": "Repeat a request safely: same key, same task."}
MOST_WHOLE_ITEMS = 100
WHOLE = ("payload", "result")
WAITING_REASON = "waiting_reason"
FILTERS = ("status", "task_type", "queue", "tag", "created_after", "created_before", "parent_id")
RETRY_AFTER_SECONDS = 1
TRACE_HEADERS = {
    "traceparent": {
        "description": "The trace that the work belongs to (W3C Trace Context); one that is none is ignored."
    },
    "tracestate": {"description": "What vendors say of that trace, up to 512 characters."},
}

Wait = Annotated[
    float, Query(ge=0, allow_inf_nan=False, description="Wait up to this many seconds for the task to end.")
]
WRONG: dict[int | str, dict[str, object]] = {
    400: {"model": Problem, "description": "The body is not acceptable JSON."},
    413: {"model": Problem, "description": "The body or a payload is too large."},
    415: {"model": Problem, "description": "The body is not declared as JSON."},
    422: {"model": Problem, "description": "The request does not fit."},
    503: UNAVAILABLE,
}
FULL: dict[int | str, dict[str, object]] = {
    429: {
        "model": Problem,
        "description": "The queue is full, or the quota of the tenant; try again after Retry-After seconds.",
    }
}
MISSING: dict[int | str, dict[str, object]] = {
    404: {"model": Problem, "description": "There is no such task."},
    422: WRONG[422],
    503: WRONG[503],
}
CONFLICT: dict[int | str, dict[str, object]] = {
    409: {"model": Problem, "description": "The task's present state forbids it."}
}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


@router.post(
    "/tasks",
    status_code=201,
    response_class=Response,
    responses={201: {"model": TaskView}, 200: {"model": TaskView}, **WRONG, **CONFLICT, **FULL},
    openapi_extra=json_body("Submission", headers={"Idempotency-Key": REPEATABLE, **TRACE_HEADERS}),
)
@needs(Scope.SUBMIT)
async def create_task(request: Request) -> Response:
    """Store a task and answer at once; a worker does it. The answer is sent after the task is on disk."""
    services = _services(request)
    settings = services.settings
    submission = await read_json(request, Submission, settings.max_body_bytes, settings.max_json_depth)
    key = _idempotency_key(request)
    with _traced(request, submission.task_type) as trace:
        new = services.intake.prepare(submission, key, tenant=tenant_of(request), trace=trace)
        submitted = await services.tasks.submit(new)
    content, location = task_json(submitted.task), (b"location", b"/tasks/%d" % submitted.task.id)
    if submitted.replayed:
        return JsonAnswer(content, 200, location, (b"idempotency-replayed", b"true"))
    return JsonAnswer(content, 201, location)


def _traced(request: Request, what: str, count: int = 1) -> AbstractContextManager[Trace | None]:
    """Gives the trace that the tasks of this request belong to, None for none."""
    parent = header(request, b"traceparent")
    trace = None if parent is None else trace_of(parent.decode("latin-1"), _tracestate(request))
    tracing = _services(request).tracing
    return nullcontext(trace) if tracing is None else tracing.submitting(trace, what, count)


def _tracestate(request: Request) -> str:
    """It may come in several headers, which are one list."""
    return ",".join(value.decode("latin-1") for name, value in request.scope["headers"] if name == b"tracestate")


def _idempotency_key(request: Request) -> str | None:
    key = header(request, b"idempotency-key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        message = "Idempotency-Key must be 1 to 255 visible ASCII characters."
        raise InvalidRequest(message, [_in_header(message)])
    return key.decode()


def _in_header(message: str) -> dict[str, object]:
    return {"location": ["header", "Idempotency-Key"], "message": message, "type": "value_error"}


@router.post(
    "/tasks/bulk",
    status_code=201,
    response_class=Response,
    responses={201: {"model": BulkAnswer}, **WRONG, **CONFLICT, **FULL},
    openapi_extra=json_body("BulkSubmission", headers=TRACE_HEADERS),
)
@needs(Scope.SUBMIT)
async def create_tasks(request: Request) -> Response:
    """Store many tasks in one transaction, all or none. The ids come in the order of the tasks."""
    services = _services(request)
    settings = services.settings
    if _idempotency_key(request) is not None:
        message = "Idempotency-Key is for single submissions; give the tasks of a bulk unique keys instead."
        raise InvalidRequest(message, [_in_header(message)])
    few = partial(_ensure_few, settings.max_bulk_tasks)
    bulk = await read_json(request, BulkSubmission, settings.max_bulk_body_bytes, settings.max_json_depth, few)
    new, tenant = [], tenant_of(request)
    with _traced(request, "bulk", len(bulk.tasks)) as trace:
        for place, submission in enumerate(bulk.tasks):
            new.append(services.intake.prepare(submission, None, ["body", "tasks", place], tenant, trace))
            if place % 500 == 499:
                await asyncio.sleep(0)  # ten thousand payload checks must not hold up everyone else
        ids = await services.tasks.submit_all(new)
    return JsonAnswer(orjson.dumps({"ids": ids}), 201)


def _ensure_few(most: int, body: object) -> None:
    """Raises InvalidRequest for more tasks than go into one submission: a body can have millions that are none."""
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if isinstance(tasks, list) and len(tasks) > most:
        message = f"At most {most} tasks go into one bulk submission, not {len(tasks)}."
        raise InvalidRequest(message, [{"location": ["body", "tasks"], "message": message, "type": "too_long"}])


@router.get("/tasks", response_class=Response, responses={200: {"model": TaskPage}, 422: WRONG[422], 503: WRONG[503]})
@needs(Scope.READ)
async def list_tasks(
    request: Request,
    status: Annotated[list[Status] | None, Query(description="May be repeated.")] = None,
    task_type: Name | None = None,
    queue: Name | None = None,
    tag: Name | None = None,
    created_after: Moment | None = None,
    created_before: Moment | None = None,
    parent_id: Annotated[int | None, Query(ge=1, le=LARGEST_INTEGER)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before.")] = None,
    q: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="In payload, result or error, letter for letter."),
    ] = None,
    include: Annotated[
        str | None, Query(description="Some of payload, result and waiting_reason, with commas between.")
    ] = None,
) -> Response:
    """Tasks, newest first, without payloads and results unless `include` asks for them. `waiting_reason` is the first
    reason why a task waits. With `q` a page may have few items or none although there is a next one: `searched` says how far
    it looked."""
    refuse_unknown_query(request, *FILTERS, "q", "limit", "cursor", "include")
    wanted = TaskFilter(
        statuses=tuple(status or ()),
        task_type=task_type,
        queue=queue,
        tag=tag,
        created_after=_storable(created_after),
        created_before=_storable(created_before),
        parent_id=parent_id,
        before_id=None if cursor is None else decoded_cursor(cursor),
        tenant=tenant_of(request),
    )
    included = words_of("include", include, (*WHOLE, WAITING_REASON))
    texts = included.intersection(WHOLE)
    if texts or q is not None:
        limit = min(limit, MOST_WHOLE_ITEMS)
    services = _services(request)
    searched = None
    if q is None:
        tasks = await services.tasks.search(wanted, limit + 1, whole_rows=bool(texts))
        before_id = tasks[limit - 1].id if len(tasks) > limit else None
    else:
        found = await services.tasks.find(wanted, q, limit)
        tasks, before_id, searched = list(found.tasks), found.next_before_id, found.scanned
    next_cursor = None if before_id is None else encoded_cursor(before_id)
    reasons = (
        await services.explainer.first_reasons(tasks[:limit], tenant_of(request))
        if WAITING_REASON in included
        else None
    )
    page = page_json(tasks[:limit], next_cursor, texts, reasons, None if searched is None else (searched, before_id))
    return JsonAnswer(page)


def _storable(moment: datetime | None) -> datetime | None:
    """A filter's moment in UTC; one that UTC cannot express lies beyond every task anyway."""
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


@router.get("/tasks/{task_id:task}", response_class=Response, responses={200: {"model": TaskView}, 304: {}, **MISSING})
@needs(Scope.READ)
async def read_task(request: Request, task_id: int, wait: Wait = 0) -> Response:
    """The task as it is now, or as soon as it has ended within `wait` seconds."""
    refuse_unknown_query(request, "wait")
    content = task_json(await _awaited(request, task_id, wait))
    tag = b'"%b"' % hashlib.blake2b(content, digest_size=8).hexdigest().encode()
    if _matches(header(request, b"if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag.decode()})
    return JsonAnswer(content, 200, (b"etag", tag))


def _matches(if_none_match: bytes | None, tag: bytes) -> bool:
    if if_none_match is None:
        return False
    return any(part.strip().removeprefix(b"W/") in (tag, b"*") for part in if_none_match.split(b","))


async def _awaited(request: Request, task_id: int, wait: float) -> Task:
    """The task, once it has ended, or after `wait` seconds (at most MAX_WAIT_SECONDS) as it is then."""
    services, tenant = _services(request), tenant_of(request)
    task = await services.tasks.get(task_id, tenant)
    if task.finished or not wait:
        return task
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait, services.settings.max_wait_seconds)
    while not task.finished and (left := deadline - loop.time()) > 0 and not services.watcher.closed:
        await services.watcher.changed(task, left)
        if not await still_welcome(services.ring, request.scope.get(CALLER)):
            raise KeyEnded
        task = await services.tasks.get(task_id, tenant)
    return task


@router.get(
    "/tasks/{task_id}/result",
    response_class=Response,
    responses={
        200: {"description": "The result as the executor returned it.", "content": {JSON: {}}},
        202: {"model": Pending, "description": "Not yet; ask again after Retry-After seconds."},
        **MISSING,
        409: {"model": Problem, "description": "The task failed or was cancelled; `error` says why."},
    },
)
@needs(Scope.READ)
async def read_result(request: Request, task_id: int, wait: Wait = 0) -> Response:
    """The bare result of a completed task."""
    refuse_unknown_query(request, "wait")
    task = await _awaited(request, task_id, wait)
    if task.status is Status.COMPLETED and task.result is not None:
        return JsonAnswer(task.result.encode())
    if task.finished:
        error = None if task.error is None else orjson.loads(task.error)
        extra = {"task_status": task.status, "failure_reason": task.failure_reason, "error": error}
        return problem(request, 409, "no-result", f"Task {task.id} is {task.status}; it has no result.", extra)
    waiting = {"status": task.status, "detail": f"Task {task.id} has not ended yet."}
    return JsonAnswer(orjson.dumps(waiting), 202, (b"retry-after", b"%d" % RETRY_AFTER_SECONDS))


@router.get("/tasks/{task_id}/attempts", response_class=Response, responses={200: {"model": AttemptList}, **MISSING})
@needs(Scope.READ)
async def read_attempts(request: Request, task_id: int) -> Response:
    """Every run of the task so far, oldest first, with its worker, times, error and the wait chosen after it."""
    return JsonAnswer(attempts_json(await _services(request).tasks.attempts(task_id, tenant_of(request))))


@router.get("/tasks/{task_id}/logs", response_class=Response, responses={200: {"model": LogList}, **MISSING})
@needs(Scope.READ)
async def read_logs(
    request: Request,
    task_id: int,
    lease: Annotated[int | None, Query(ge=1, le=LARGEST_INTEGER, description="Of this attempt alone.")] = None,
) -> Response:
    """What the task's attempts printed and logged, oldest first: the last lines of the last attempts."""
    refuse_unknown_query(request, "lease")
    read_to = (0, 0) if lease is None else (lease, 0)
    chunks = await _services(request).tasks.lines(task_id, read_to, tenant_of(request))
    return JsonAnswer(logs_json([chunk for chunk in chunks if lease is None or chunk.lease == lease]))


@router.patch(
    "/tasks/{task_id:task}",
    response_class=Response,
    responses={200: {"model": TaskView}, **MISSING, **WRONG, **CONFLICT},
    openapi_extra=json_body("TaskPatch"),
)
@needs(Scope.MANAGE)
async def edit_task(request: Request, task_id: int) -> Response:
    """Change a task while it waits."""
    services = _services(request)
    patch = await read_json(request, TaskPatch, services.settings.max_body_bytes, services.settings.max_json_depth)
    task = await services.tasks.edit(task_id, Edit(_edited_columns(patch)), tenant_of(request), actor_of(request))
    return JsonAnswer(task_json(task))


def _edited_columns(patch: TaskPatch) -> dict[str, object]:
    columns: dict[str, object] = {}
    for name in patch.model_fields_set:
        match name:
            case "priority":
                columns[name] = priority_number(patch.priority)
            case "tags":
                columns[name] = tuple(patch.tags)
            case "metadata":
                columns[name] = metadata_text(patch.metadata, ["body"])
            case _:
                columns[name] = getattr(patch, name)
    return columns


@router.delete("/tasks/{task_id:task}", status_code=204, response_class=Response, responses={**MISSING, **CONFLICT})
@needs(Scope.MANAGE)
async def delete_task(request: Request, task_id: int) -> Response:
    """Delete a task that does not run, with its history. Tasks it is the parent of stay."""
    await _services(request).tasks.delete(task_id, tenant_of(request), actor_of(request))
    return Response(status_code=204)


@router.post(
    "/tasks/{task_id}/cancel", response_class=Response, responses={200: {"model": TaskView}, **MISSING, **CONFLICT}
)
@needs(Scope.MANAGE)
async def cancel_task(request: Request, task_id: int) -> Response:
    """End a waiting task, or ask a running one to stop: it stays `running` until its worker has obeyed."""
    return JsonAnswer(task_json(await _services(request).tasks.cancel(task_id, tenant_of(request), actor_of(request))))


@router.post(
    "/tasks/{task_id}/retry",
    response_class=Response,
    responses={200: {"model": TaskView}, **MISSING, **CONFLICT, **FULL},
)
@needs(Scope.MANAGE)
async def retry_task(request: Request, task_id: int) -> Response:
    """Run a failed or cancelled task again, now, with a fresh budget of attempts. Its history stays."""
    return JsonAnswer(task_json(await _services(request).tasks.retry(task_id, tenant_of(request), actor_of(request))))
