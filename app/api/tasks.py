"""Routes for tasks. Each reads what it was asked, calls one use case, and shows what came back."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime

from app.api.body import read_json
from app.api.errors import Problem, problem
from app.api.insights import UNAVAILABLE
from app.api.openapi import json_body
from app.api.query import Name, decoded_cursor, encoded_cursor, refuse_unknown_query
from app.api.schemas import (
    AttemptList,
    BulkAnswer,
    BulkSubmission,
    Pending,
    TaskPage,
    TaskPatch,
    TaskView,
    attempts_json,
    page_json,
    task_json,
)
from app.core.errors import InvalidRequest
from app.core.lifecycle import Edit
from app.core.task import LARGEST_INTEGER, Status, Task
from app.models.tasks import TaskFilter
from app.services.submissions import Submission, metadata_text, priority_number
from app.services.wiring import Services

router = APIRouter(tags=["tasks"])

JSON = "application/json"
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
MOST_WHOLE_ITEMS = 100
FILTERS = ("status", "task_type", "queue", "tag", "created_after", "created_before", "parent_id")
RETRY_AFTER_SECONDS = 1

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
    responses={201: {"model": TaskView}, 200: {"model": TaskView}, **WRONG, **CONFLICT},
    openapi_extra=json_body("Submission", headers={"Idempotency-Key": "Repeat a request safely: same key, same task."}),
)
async def create_task(request: Request) -> Response:
    """Store a task and answer at once; a worker does it. The answer is sent after the task is on disk."""
    services = _services(request)
    settings = services.settings
    submission = await read_json(request, Submission, settings.max_body_bytes, settings.max_json_depth)
    key = _idempotency_key(request)
    submitted = await services.tasks.submit(services.intake.prepare(submission, key))
    headers = {"Location": f"/tasks/{submitted.task.id}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(task_json(submitted.task), 200 if submitted.replayed else 201, headers, JSON)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        message = "Idempotency-Key must be 1 to 255 visible ASCII characters."
        raise InvalidRequest(message, [_in_header(message)])
    return key


def _in_header(message: str) -> dict[str, object]:
    return {"location": ["header", "Idempotency-Key"], "message": message, "type": "value_error"}


@router.post(
    "/tasks/bulk",
    status_code=201,
    response_class=Response,
    responses={201: {"model": BulkAnswer}, **WRONG, **CONFLICT},
    openapi_extra=json_body("BulkSubmission"),
)
async def create_tasks(request: Request) -> Response:
    """Store many tasks in one transaction, all or none. The ids come in the order of the tasks."""
    services = _services(request)
    settings = services.settings
    if _idempotency_key(request) is not None:
        message = "Idempotency-Key is for single submissions; give the tasks of a bulk unique keys instead."
        raise InvalidRequest(message, [_in_header(message)])
    bulk = await read_json(request, BulkSubmission, settings.max_bulk_body_bytes, settings.max_json_depth)
    if len(bulk.tasks) > settings.max_bulk_tasks:
        message = f"At most {settings.max_bulk_tasks} tasks go into one bulk submission, not {len(bulk.tasks)}."
        raise InvalidRequest(message, [{"location": ["body", "tasks"], "message": message, "type": "too_long"}])
    new = []
    for place, submission in enumerate(bulk.tasks):
        new.append(services.intake.prepare(submission, location=["body", "tasks", place]))
        if place % 500 == 499:
            await asyncio.sleep(0)  # ten thousand payload checks must not hold up everyone else
    ids = await services.tasks.submit_all(new)
    return Response(orjson.dumps({"ids": ids}), 201, media_type=JSON)


@router.get("/tasks", response_class=Response, responses={200: {"model": TaskPage}, 422: WRONG[422], 503: WRONG[503]})
async def list_tasks(
    request: Request,
    status: Annotated[list[Status] | None, Query(description="May be repeated.")] = None,
    task_type: Name | None = None,
    queue: Name | None = None,
    tag: Name | None = None,
    created_after: AwareDatetime | None = None,
    created_before: AwareDatetime | None = None,
    parent_id: Annotated[int | None, Query(ge=1, le=LARGEST_INTEGER)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before.")] = None,
    include: Annotated[
        str | None, Query(pattern="^(payload|result)(,(payload|result))?$", description="payload, result or both.")
    ] = None,
) -> Response:
    """Tasks, newest first, without payloads and results unless `include` asks for them."""
    refuse_unknown_query(request, *FILTERS, "limit", "cursor", "include")
    wanted = TaskFilter(
        statuses=tuple(status or ()),
        task_type=task_type,
        queue=queue,
        tag=tag,
        created_after=_storable(created_after),
        created_before=_storable(created_before),
        parent_id=parent_id,
        before_id=None if cursor is None else decoded_cursor(cursor),
    )
    included = set(include.split(",")) if include else set()
    if included:
        limit = min(limit, MOST_WHOLE_ITEMS)
    tasks = await _services(request).tasks.search(wanted, limit + 1, whole_rows=bool(included))
    next_cursor = encoded_cursor(tasks[limit - 1].id) if len(tasks) > limit else None
    return Response(page_json(tasks[:limit], next_cursor, included), media_type=JSON)


def _storable(moment: datetime | None) -> datetime | None:
    """A filter's moment in UTC; one that UTC cannot express lies beyond every task anyway."""
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


@router.get("/tasks/{task_id}", response_class=Response, responses={200: {"model": TaskView}, 304: {}, **MISSING})
async def read_task(request: Request, task_id: int, wait: Wait = 0) -> Response:
    """The task as it is now, or as soon as it has ended within `wait` seconds."""
    refuse_unknown_query(request, "wait")
    content = task_json(await _awaited(_services(request), task_id, wait))
    tag = f'"{hashlib.blake2b(content, digest_size=8).hexdigest()}"'
    if _matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(content, headers={"ETag": tag}, media_type=JSON)


def _matches(if_none_match: str | None, tag: str) -> bool:
    if if_none_match is None:
        return False
    return any(part.strip().removeprefix("W/") in (tag, "*") for part in if_none_match.split(","))


async def _awaited(services: Services, task_id: int, wait: float) -> Task:
    """The task, once it has ended, or after `wait` seconds (at most MAX_WAIT_SECONDS) as it is then."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait, services.settings.max_wait_seconds)
    task = await services.tasks.get(task_id)
    while not task.finished and (left := deadline - loop.time()) > 0 and not services.watcher.closed:
        await services.watcher.changed(task, left)
        task = await services.tasks.get(task_id)
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
async def read_result(request: Request, task_id: int, wait: Wait = 0) -> Response:
    """The bare result of a completed task."""
    refuse_unknown_query(request, "wait")
    task = await _awaited(_services(request), task_id, wait)
    if task.status is Status.COMPLETED and task.result is not None:
        return Response(task.result, media_type=JSON)
    if task.finished:
        error = None if task.error is None else orjson.loads(task.error)
        extra = {"task_status": task.status, "failure_reason": task.failure_reason, "error": error}
        return problem(request, 409, "no-result", f"Task {task.id} is {task.status}; it has no result.", extra)
    waiting = {"status": task.status, "detail": f"Task {task.id} has not ended yet."}
    return Response(orjson.dumps(waiting), 202, {"Retry-After": str(RETRY_AFTER_SECONDS)}, JSON)


@router.get("/tasks/{task_id}/attempts", response_class=Response, responses={200: {"model": AttemptList}, **MISSING})
async def read_attempts(request: Request, task_id: int) -> Response:
    """Every run of the task so far, oldest first, with its worker, times, error and the wait chosen after it."""
    return Response(attempts_json(await _services(request).tasks.attempts(task_id)), media_type=JSON)


@router.patch(
    "/tasks/{task_id}",
    response_class=Response,
    responses={200: {"model": TaskView}, **MISSING, **WRONG, **CONFLICT},
    openapi_extra=json_body("TaskPatch"),
)
async def edit_task(request: Request, task_id: int) -> Response:
    """Change a task while it waits."""
    services = _services(request)
    patch = await read_json(request, TaskPatch, services.settings.max_body_bytes, services.settings.max_json_depth)
    task = await services.tasks.edit(task_id, Edit(_edited_columns(patch)))
    return Response(task_json(task), media_type=JSON)


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


@router.delete("/tasks/{task_id}", status_code=204, response_class=Response, responses={**MISSING, **CONFLICT})
async def delete_task(request: Request, task_id: int) -> Response:
    """Delete a task that does not run, with its history. Tasks it is the parent of stay."""
    await _services(request).tasks.delete(task_id)
    return Response(status_code=204)


@router.post(
    "/tasks/{task_id}/cancel", response_class=Response, responses={200: {"model": TaskView}, **MISSING, **CONFLICT}
)
async def cancel_task(request: Request, task_id: int) -> Response:
    """End a waiting task, or ask a running one to stop: it stays `running` until its worker has obeyed."""
    return Response(task_json(await _services(request).tasks.cancel(task_id)), media_type=JSON)


@router.post(
    "/tasks/{task_id}/retry", response_class=Response, responses={200: {"model": TaskView}, **MISSING, **CONFLICT}
)
async def retry_task(request: Request, task_id: int) -> Response:
    """Run a failed or cancelled task again, now, with a fresh budget of attempts. Its history stays."""
    return Response(task_json(await _services(request).tasks.retry(task_id)), media_type=JSON)
