"""Statements for what clients do with tasks. Each takes a connection, returns values and decides nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    ColumnExpressionArgument,
    Select,
    delete,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import TableValuedAlias

from app.core.clock import to_milliseconds
from app.core.task import WAITING, NewTask, Status, Task, rank_of
from app.core.values import field_names
from app.models import tables
from app.models.dialects import given_rows, holds, insert_or, later_of, next_task_ids, number, string, task_id, whole
from app.models.tables import tasks
from app.models.types import Moment, join_names

_FIELDS = field_names(Task)
_WHOLE = tuple(tasks.c[name] for name in _FIELDS)
# A list shows no payloads and results unless asked to: they may be a megabyte each.
_SUMMARY = tuple(
    literal_column("NULL").label(name) if name in ("payload", "result") else tasks.c[name] for name in _FIELDS
)

_given = given_rows("rows")
# As `_new_row` gives them, in this order.
_NEW: tuple[tuple[str, Callable[[TableValuedAlias, int], ColumnElement[Any]]], ...] = (
    *(
        ("id", task_id),
        ("task_type", string),
        ("queue", string),
        ("status", string),
        ("priority", whole),
        ("rank", whole),
    ),
    *(("payload", string), ("max_attempts", whole), ("timeout_seconds", number), ("created_at", whole)),
    *(("scheduled_at", whole), ("expires_at", whole), ("unique_key", string), ("idempotency_key", string)),
    *(("request_hash", string), ("parent_id", whole), ("tags", string), ("metadata", string), ("traceparent", string)),
    *(("retry", string), ("retry_for_seconds", number), ("retry_until", whole), ("tenant", string)),
    *(("concurrency_key", string), ("concurrency_limit", whole), ("webhook_url", string), ("tracestate", string)),
)
# `WHERE true`: without it SQLite would read ON CONFLICT as the ON of a join.
_insert = (
    insert_or(tasks)
    .from_select(
        [name for name, _ in _NEW],
        select(*(read(_given, place) for place, (_, read) in enumerate(_NEW))).select_from(_given).where(true()),
    )
    .on_conflict_do_nothing()
    .returning(tasks.c.id)
)
_get = select(*_WHOLE).where(tasks.c.id.in_(select(whole(_given, "id")).select_from(_given)))


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list shows. Empty or None is no limit; `before_id` continues a page, newest first."""

    statuses: tuple[Status, ...] = ()
    task_type: str | None = None
    queue: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    parent_id: int | None = None
    before_id: int | None = None
    tenant: str = ""


async def insert_new(
    connection: AsyncConnection, new: Sequence[NewTask], now: datetime, priority_step_seconds: float
) -> tuple[list[int], set[int]]:
    """Store `new` in one statement. Returns the id meant for each, and the ids that were really stored; 0 is meant for one
    that comes alone and is not stored.

    What was not stored collides with a `unique_key` or an `idempotency_key` of a row or of an earlier one in `new`. What
    has a concurrency key is blocked until it gets a place (`concurrency.shift`).
    """
    # One that comes alone is numbered as it is stored: it would wait for a statement more otherwise.
    ids: Sequence[int | None] = [None] if len(new) == 1 else await next_task_ids(connection, len(new))
    created_at = to_milliseconds(now)
    pairs = list(zip(new, ids, strict=True))
    # Two batches with keys in common, in different order, would wait for each other in a circle.
    pairs.sort(key=lambda pair: pair[0].unique_key or pair[0].idempotency_key or "")
    rows = [_new_row(task, id_, now, created_at, priority_step_seconds) for task, id_ in pairs]
    stored = (await connection.scalars(_insert, {"rows": orjson.dumps(rows).decode()})).all()
    return [id_ or next(iter(stored), 0) for id_ in ids], set(stored)


def stored_task(
    task: NewTask, task_id: int, now: datetime, priority_step_seconds: float, *, blocked: bool = False
) -> Task:
    """The row that `insert_new` makes of a submission, so that answering it needs no second look. `blocked`: it waits for a
    place of its concurrency key."""
    waits = task.scheduled_at is not None and task.scheduled_at > now
    ready_at = task.scheduled_at if waits and task.scheduled_at else now
    return Task(
        id=task_id,
        task_type=task.task_type,
        queue=task.queue,
        status=Status.SCHEDULED if waits else Status.BLOCKED if blocked else Status.PENDING,
        priority=task.priority,
        rank=rank_of(ready_at, task.priority, priority_step_seconds),
        attempts=0,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        lease=0,
        created_at=_as_stored(now),
        payload=task.payload,
        scheduled_at=task.scheduled_at and _as_stored(task.scheduled_at),
        expires_at=task.expires_at and _as_stored(task.expires_at),
        unique_key=task.unique_key,
        idempotency_key=task.idempotency_key,
        request_hash=task.request_hash,
        parent_id=task.parent_id,
        tags=task.tags,
        metadata=task.metadata,
        traceparent=task.traceparent,
        retry=task.retry,
        retry_for_seconds=task.retry_for_seconds,
        retry_until=_retry_until(task.retry_for_seconds, ready_at),
        tenant=task.tenant,
        concurrency_key=task.concurrency_key,
        concurrency_limit=task.concurrency_limit,
        webhook_url=task.webhook_url,
        tracestate=task.tracestate,
    )


def _retry_until(seconds: float | None, ready_at: datetime) -> datetime | None:
    return None if seconds is None else _as_stored(ready_at + timedelta(seconds=seconds))


def _as_stored(moment: datetime) -> datetime:
    """`moment` to the millisecond, as it will be read again."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _new_row(
    task: NewTask, task_id: int | None, now: datetime, now_milliseconds: int, step_seconds: float
) -> tuple[Any, ...]:
    """The same row as the statement takes it."""
    starts_at = task.scheduled_at
    waits = starts_at is not None and starts_at > now
    retry_until = _retry_until(task.retry_for_seconds, starts_at if waits and starts_at else now)
    return (
        task_id,
        task.task_type,
        task.queue,
        "scheduled" if waits else "pending" if task.concurrency_key is None else "blocked",
        task.priority,
        rank_of(starts_at if waits and starts_at else now, task.priority, step_seconds),
        task.payload,
        task.max_attempts,
        task.timeout_seconds,
        now_milliseconds,
        None if starts_at is None else to_milliseconds(starts_at),
        None if task.expires_at is None else to_milliseconds(task.expires_at),
        task.unique_key,
        task.idempotency_key,
        task.request_hash,
        task.parent_id,
        join_names(task.tags),
        task.metadata,
        task.traceparent,
        task.retry,
        task.retry_for_seconds,
        None if retry_until is None else to_milliseconds(retry_until),
        task.tenant,
        task.concurrency_key,
        task.concurrency_limit,
        task.webhook_url,
        task.tracestate,
    )


async def get_many(connection: AsyncConnection, ids: Collection[int]) -> dict[int, Task]:
    """The tasks with these ids; an id that does not exist is simply missing."""
    rows = await connection.execute(_get, {"rows": orjson.dumps([{"id": id_} for id_ in ids]).decode()})
    return {row[0]: Task(*row) for row in rows}


async def get_for_change(
    connection: AsyncConnection, task_id: int, *, tenant: str = "", delete: bool = False
) -> Task | None:
    """The task, locked until the transaction ends (on SQLite the whole store is), `delete` even against new children. None
    too where it is not that tenant's."""
    statement = select(*_WHOLE).where(tasks.c.id == task_id)
    if tenant:
        statement = statement.where(tasks.c.tenant == tenant)
    row = (await connection.execute(statement.with_for_update(key_share=not delete))).first()
    return None if row is None else Task(*row)


async def present(connection: AsyncConnection, ids: Collection[int]) -> dict[int, str]:
    """Which of these tasks are there, and whose; they cannot be deleted until the transaction ends."""
    statement = select(tasks.c.id, tasks.c.tenant).where(tasks.c.id.in_(ids)).order_by(tasks.c.id)
    found = await connection.execute(statement.with_for_update(read=True, key_share=True))
    return {row[0]: row[1] for row in found}


def of_tenant(tenant: str) -> tuple[ColumnElement[bool], ...]:
    """The condition that a task is this tenant's, with the words by which the store finds the index; none for everyone's."""
    indexed: ColumnElement[bool] = literal_column(tables.OF_A_TENANT)
    return (tasks.c.tenant == tenant, indexed) if tenant else ()


async def search(connection: AsyncConnection, wanted: TaskFilter, limit: int, *, whole_rows: bool) -> list[Task]:
    """Up to `limit` tasks, newest first; without payload and result unless `whole_rows`."""
    statement = select(*(_WHOLE if whole_rows else _SUMMARY)).where(*_conditions(wanted))
    rows = await connection.execute(statement.order_by(tasks.c.id.desc()).limit(limit))
    return [Task(*row) for row in rows]


async def scan(
    connection: AsyncConnection, wanted: TaskFilter, parts: Collection[str], limit: int
) -> list[tuple[int, bool]]:
    """Ids of the next up to `limit` tasks that fit, newest first, and of each whether its payload, result or error has one
    of `parts` in it, letter for letter as JSON."""
    # The ids first: no text is read of a row that a sort then leaves out.
    chosen = select(tasks.c.id).where(*_conditions(wanted)).order_by(tasks.c.id.desc()).limit(limit)
    texts = (tasks.c.payload, tasks.c.result, tasks.c.error)
    found = or_(*(func.coalesce(holds(column, part), false()) for column in texts for part in parts))
    statement = select(tasks.c.id, found).where(tasks.c.id.in_(chosen.scalar_subquery())).order_by(tasks.c.id.desc())
    return [(id_, bool(hit)) for id_, hit in await connection.execute(statement)]


def _conditions(wanted: TaskFilter) -> list[ColumnExpressionArgument[bool]]:
    conditions: list[ColumnExpressionArgument[bool]] = [*of_tenant(wanted.tenant)]
    if wanted.statuses:
        words = ", ".join(f"'{status}'" for status in wanted.statuses)
        conditions.append(literal_column(f"status IN ({words})"))
        if set(wanted.statuses) <= {Status.FAILED, Status.CANCELLED}:
            # Rare ones among millions: the index made for them is found by its condition's own words.
            conditions.append(literal_column(tables.UNHAPPY))
    for column, value in (
        (tasks.c.task_type, wanted.task_type),
        (tasks.c.queue, wanted.queue),
        (tasks.c.parent_id, wanted.parent_id),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.tag is not None:
        conditions.append(holds(tasks.c.tags, f"|{wanted.tag}|"))
    if wanted.created_after is not None:
        conditions.append(tasks.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(tasks.c.created_at < wanted.created_before)
    if wanted.before_id is not None:
        conditions.append(tasks.c.id < wanted.before_id)
    return conditions


async def find_by_keys(
    connection: AsyncConnection,
    idempotency_keys: Collection[str],
    unique_keys: Collection[str],
    tenants: Collection[str] = ("",),
) -> list[Task]:
    """The tasks of these tenants that own one of the idempotency keys, and the unfinished ones that hold one of the unique
    keys."""
    keyed = tasks.c.idempotency_key.in_(idempotency_keys)
    holds_unique = literal_column(f"({tables.HOLDS_UNIQUE_KEY})") & tasks.c.unique_key.in_(unique_keys)
    statement = select(*_WHOLE).where(or_(keyed, holds_unique), tasks.c.tenant.in_(tenants))
    return [Task(*row) for row in await connection.execute(statement)]


async def count_waiting(connection: AsyncConnection, tenant: str, most: int) -> int:
    """How many tasks of a tenant wait; no more than `most` are counted."""
    words = ", ".join(f"'{status}'" for status in WAITING)
    waiting: ColumnElement[bool] = literal_column(f"status IN ({words})")
    some: Select[Any] = select(literal_column("1")).select_from(tasks).where(*of_tenant(tenant), waiting).limit(most)
    return await connection.scalar(select(func.count()).select_from(some.subquery())) or 0


async def edit_waiting(connection: AsyncConnection, task_id: int, values: dict[str, Any]) -> bool:
    """Set columns of a task that still waits. False if it does not."""
    statement = update(tasks).where(tasks.c.id == task_id, tasks.c.status.in_(WAITING)).values(values)
    return (await connection.execute(statement)).rowcount == 1


async def cancel_waiting(connection: AsyncConnection, task_id: int, now: datetime) -> bool:
    """End a waiting task as cancelled. False if it does not wait."""
    # The wall clock may have been set back since an attempt began: a task never ends before that.
    at = literal(now, Moment)
    ended_at = later_of(at, func.coalesce(tasks.c.started_at, at))
    return await edit_waiting(
        connection, task_id, {"status": Status.CANCELLED, "finished_at": ended_at, "cancel_requested_at": now}
    )


async def request_cancel(connection: AsyncConnection, task_id: int, lease: int, now: datetime) -> bool:
    """Ask the worker that holds `lease` to stop. False if it holds it no longer."""
    statement = (
        update(tasks)
        .where(tasks.c.id == task_id, tasks.c.lease == lease, tasks.c.status == Status.RUNNING)
        .values(cancel_requested_at=now)
    )
    return (await connection.execute(statement)).rowcount == 1


async def make_ready_again(connection: AsyncConnection, task: Task, now: datetime, rank: int) -> bool:
    """A person's retry: a fresh budget of attempts, ready now (or blocked, with a concurrency key). The lease and the
    history stay."""
    statement = (
        update(tasks)
        .where(tasks.c.id == task.id, tasks.c.status == task.status)
        .values(
            status=Status.PENDING if task.concurrency_key is None else Status.BLOCKED,
            attempts=0,
            deaths=0,
            rank=rank,
            scheduled_at=None,
            finished_at=None,
            expires_at=None,
            failure_reason=None,
            cancel_requested_at=None,
            progress=None,
            retry_until=_retry_until(task.retry_for_seconds, now),
            resolved_at=None,
            resolution=None,
        )
    )
    return (await connection.execute(statement)).rowcount == 1


async def delete_idle(connection: AsyncConnection, task_id: int) -> bool:
    """Delete the task unless it runs; its history goes with it, its children stay. False if nothing was deleted."""
    statement = delete(tasks).where(tasks.c.id == task_id, tasks.c.status != Status.RUNNING)
    return (await connection.execute(statement)).rowcount == 1


@dataclass(frozen=True, slots=True)
class Version:
    """What a watcher compares: if any of it differs, the task looks different to a client."""

    status: Status
    lease: int
    attempts: int
    max_attempts: int
    rank: int
    priority: int
    progress: str | None
    cancel_requested_at: datetime | None
    scheduled_at: datetime | None
    parent_id: int | None
    tags: tuple[str, ...]
    metadata: str | None


_VERSION = tuple(tasks.c[name] for name in Version.__dataclass_fields__)
_get_versions = select(tasks.c.id, *_VERSION).where(tasks.c.id.in_(select(whole(_given, "id")).select_from(_given)))


def version_of(task: Task) -> Version:
    """The version of a row that was read before."""
    return Version(*(getattr(task, name) for name in Version.__dataclass_fields__))


async def versions(connection: AsyncConnection, ids: Collection[int]) -> dict[int, Version]:
    """The versions of these tasks now, without their payloads and results; an id that does not exist is missing."""
    found = await connection.execute(_get_versions, {"rows": orjson.dumps([{"id": id_} for id_ in ids]).decode()})
    return {row[0]: Version(*row[1:]) for row in found}
