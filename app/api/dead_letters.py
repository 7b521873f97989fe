"""Routes for dead letters: failed tasks that nobody has dealt with."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.access import actor_of, needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.openapi import json_body
from app.api.query import Name, decoded_cursor, encoded_cursor, refuse_unknown_query
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, ErrorView, Resolution, Selection, TaskSummary, summary_fields
from app.api.tasks import WRONG
from app.core.errors import InvalidRequest
from app.core.fingerprint import FINGERPRINT
from app.core.keys import Scope
from app.core.task import FailureReason
from app.models.dead_letters import DeadFilter
from app.services.dead_letters import ActionReport
from app.services.wiring import Services

router = APIRouter(tags=["dead letters"], route_class=DirectRoute)

Chosen = TypeVar("Chosen", bound="Selection")
FILTERS = ("task_type", "queue", "failure_reason", "fingerprint")
Fingerprint = Annotated[str, Query(pattern=FINGERPRINT, description="That of a group.")]


class DeadLetter(TaskSummary):
    """A failed task; `fingerprint` is that of its cause."""

    fingerprint: str | None


class DeadLetterPage(BaseModel):
    """Dead letters, newest first. `next_cursor` is null on the last page."""

    items: list[DeadLetter]
    next_cursor: str | None


class CauseGroupView(BaseModel):
    """Dead letters of one task type with one cause; `error` is that of the newest, `task_ids` are the ten newest."""

    fingerprint: str
    task_type: str
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    error: ErrorView | None
    task_ids: list[int]


class CauseGroups(BaseModel):
    """The largest groups, of `total` dead letters."""

    total: int
    items: list[CauseGroupView]


class ActionView(BaseModel):
    """What was done, or would be. `task_ids` are the first ten; `skipped` says who was left alone, and why."""

    dry_run: bool
    matched: int
    changed: int
    task_ids: list[int]
    skipped: list[dict[str, Any]]


@router.get(
    "/dead-letters",
    response_class=Response,
    responses={200: {"model": DeadLetterPage}, 422: WRONG[422], 503: WRONG[503]},
)
@needs(Scope.READ)
async def list_dead_letters(
    request: Request,
    task_type: Name | None = None,
    queue: Name | None = None,
    failure_reason: FailureReason | None = None,
    fingerprint: Fingerprint | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before.")] = None,
) -> Response:
    """Failed tasks that nobody has dealt with, newest first."""
    refuse_unknown_query(request, *FILTERS, "limit", "cursor")
    wanted = DeadFilter(task_type, queue, failure_reason, fingerprint, tenant=tenant_of(request))
    before_id = None if cursor is None else decoded_cursor(cursor)
    found = await _services(request).dead_letters.search(wanted, limit + 1, before_id)
    items = [summary_fields(task) | {"fingerprint": task.fingerprint} for task in found[:limit]]
    next_cursor = encoded_cursor(found[limit - 1].id) if len(found) > limit else None
    return JsonAnswer(orjson.dumps({"items": items, "next_cursor": next_cursor}, option=OPTIONS))


@router.get(
    "/dead-letters/groups",
    response_class=Response,
    responses={200: {"model": CauseGroups}, 422: WRONG[422], 503: WRONG[503]},
)
@needs(Scope.READ)
async def group_dead_letters(
    request: Request,
    task_type: Name | None = None,
    queue: Name | None = None,
    failure_reason: FailureReason | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Response:
    """Dead letters by cause: by task type, class of error, and its message without numbers and ids. Largest first."""
    refuse_unknown_query(request, *FILTERS[:3], "limit")
    wanted = DeadFilter(task_type, queue, failure_reason, tenant=tenant_of(request))
    total, found = await _services(request).dead_letters.groups(wanted, limit)
    items = [
        {name: getattr(group, name) for name in CauseGroupView.model_fields if name != "error"}
        | {"error": None if group.error is None else orjson.Fragment(group.error)}
        for group in found
    ]
    return JsonAnswer(orjson.dumps({"total": total, "items": items}, option=OPTIONS))


@router.post(
    "/dead-letters/requeue",
    response_class=Response,
    responses={200: {"model": ActionView}, **WRONG},
    openapi_extra=json_body("Selection"),
)
@needs(Scope.MANAGE)
async def requeue_dead_letters(request: Request) -> Response:
    """Run failed tasks again, now, with a fresh budget of attempts. Their history stays."""
    selection = await _read(request, Selection)
    letters, wanted = _services(request).dead_letters, _filter(request, selection)
    return _shown(await letters.requeue(wanted, dry_run=selection.dry_run, by=actor_of(request)))


@router.post(
    "/dead-letters/resolve",
    response_class=Response,
    responses={200: {"model": ActionView}, **WRONG},
    openapi_extra=json_body("Resolution"),
)
@needs(Scope.MANAGE)
async def resolve_dead_letters(request: Request) -> Response:
    """Say that failed tasks are dealt with. They stay failed, with the note, and are no dead letters any more."""
    selection = await _read(request, Resolution)
    letters, wanted = _services(request).dead_letters, _filter(request, selection)
    by = actor_of(request)
    return _shown(await letters.resolve(wanted, selection.note, dry_run=selection.dry_run, by=by))


@router.post(
    "/dead-letters/purge",
    response_class=Response,
    responses={200: {"model": ActionView}, **WRONG},
    openapi_extra=json_body("Selection"),
)
@needs(Scope.MANAGE)
async def purge_dead_letters(request: Request) -> Response:
    """Delete failed tasks, with their history and files."""
    selection = await _read(request, Selection)
    letters, wanted = _services(request).dead_letters, _filter(request, selection)
    return _shown(await letters.purge(wanted, dry_run=selection.dry_run, by=actor_of(request)))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _read(request: Request, model: type[Chosen]) -> Chosen:
    settings = _services(request).settings
    return await read_json(request, model, settings.max_body_bytes, settings.max_json_depth)


def _filter(request: Request, selection: Selection) -> DeadFilter:
    """Raises InvalidRequest where nothing was asked for: an empty body must not mean everything."""
    wanted = DeadFilter(
        *(selection.task_type, selection.queue, selection.failure_reason, selection.fingerprint),
        ids=None if selection.ids is None else tuple(selection.ids),
        tenant=tenant_of(request),
    )
    if wanted.everything != selection.all:
        message = (
            "Say which dead letters are meant by ids, fingerprint, task_type, queue or failure_reason, or say all."
        )
        raise InvalidRequest(message, [{"location": ["body", "all"], "message": message, "type": "value_error"}])
    return wanted


def _shown(report: ActionReport) -> Response:
    return JsonAnswer(orjson.dumps(report))
