"""Statements for upkeep: what is due, what is over, what is old. Each works in small batches and may run anywhere.

Rows that somebody else holds are left alone: whoever does the same chore has them in hand, and nobody waits for anybody.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    select,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.ahead import Moved, Wait
from app.core.clock import JUMP, to_milliseconds
from app.core.leases import HeldLease
from app.core.task import TERMINAL, WAITING, FailureReason, JsonText, Status, Task
from app.core.values import field_names
from app.models import tables
from app.models.dialects import given_rows, plain, whole
from app.models.tables import task_attempts, tasks
from app.models.types import Moment

_PENDING: ColumnElement[bool] = literal_column(tables.PENDING)
_LEASED: ColumnElement[bool] = literal_column(tables.LEASED)
_DELAYED: ColumnElement[bool] = literal_column(tables.DELAYED)
_UNSTARTED: ColumnElement[bool] = literal_column(tables.UNSTARTED)
_FINISHED: ColumnElement[bool] = literal_column(tables.FINISHED)
UNSTARTED = (Status.PENDING, Status.SCHEDULED, Status.BLOCKED)
_FIELDS = tuple(tasks.c[name] for name in field_names(Task))


_held = select(tasks.c.id, tasks.c.lease, tasks.c.lease_expires_at).where(_LEASED)
_ends_before = _held.where(tasks.c.lease_expires_at < bindparam("before", type_=Moment))
_ends_after = _held.where(tasks.c.lease_expires_at > bindparam("after", type_=Moment))
_standing_out = union_all(_ends_before, _ends_after)


async def leases_that_end(connection: AsyncConnection, before: datetime, after: datetime) -> list[HeldLease]:
    """The leases that end before the one moment or after the other: none, as long as all goes well."""
    rows = await connection.execute(_standing_out, {"before": before, "after": after})
    return [HeldLease(*row) for row in rows]


_given = given_rows("rows")
_unrenewed = (
    select(*_FIELDS)
    .join_from(
        _given,
        tasks,
        (tasks.c.id == whole(_given, "id")) & (tasks.c.lease == whole(_given, "lease"))
        # As expressions that no index knows: these rows are meant by their ids.
        & (func.coalesce(type_coerce(tasks.c.lease_expires_at, BigInteger), 0) == whole(_given, "expires_at"))
        & (plain(tasks.c.status) == literal_column("'running'")),
    )
    .with_for_update(of=tasks, skip_locked=True, key_share=True)
)


async def unrenewed(connection: AsyncConnection, leases: Iterable[HeldLease]) -> list[Task]:
    """The tasks still running under one of these leases that nobody has renewed since it was read, by id, locked; those
    that another sweeper holds are left to it."""
    rows = [{"id": one.id, "lease": one.lease, "expires_at": to_milliseconds(one.expires_at)} for one in leases]
    found = [Task(*row) for row in await connection.execute(_unrenewed, {"rows": orjson.dumps(rows).decode()})]
    return sorted(found, key=lambda task: task.id)


# Literals: a list of values would have the statement's text made anew each time, and every claim says it.
_DUE_STATES: tuple[ColumnElement[str], ...] = (literal_column("'scheduled'"), literal_column("'retrying'"))
_due = (
    select(tasks.c.id)
    .where(_DELAYED, tasks.c.scheduled_at <= bindparam("now", type_=Moment))
    .order_by(tasks.c.scheduled_at, tasks.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, key_share=True)
    # As a subquery it may be run once for each row it is compared with, and take more than its limit together.
    .cte("due")
    .prefix_with("MATERIALIZED")
)
_promote = (
    update(tasks)
    .where(tasks.c.id.in_(select(_due.c.id)), plain(tasks.c.status).in_(_DUE_STATES))
    .values(
        status=case((tasks.c.concurrency_key.is_(None), literal_column("'pending'")), else_=literal_column("'blocked'"))
    )
    .returning(tasks.c.queue, tasks.c.concurrency_key)
)


async def promote_due(connection: AsyncConnection, now: datetime, limit: int) -> list[tuple[str, str | None]]:
    """Make up to `limit` due tasks ready, or blocked where they have a concurrency key. Their rank was set when they were
    delayed. Returns queue and key of each."""
    return [(queue, key) for queue, key in await connection.execute(_promote, {"now": now, "most": limit})]


async def next_due(connection: AsyncConnection) -> datetime | None:
    """When the next scheduled or retrying task is due, None if there is none. (`queue.front` asks the same, with more.)"""
    return await connection.scalar(
        select(tasks.c.scheduled_at).where(_DELAYED).order_by(tasks.c.scheduled_at, tasks.c.id).limit(1)
    )


@dataclass(frozen=True, slots=True)
class Late:
    """A task that should have started by now."""

    id: int
    queue: str
    task_type: str
    concurrency_key: str | None


async def overdue(connection: AsyncConnection, now: datetime, limit: int) -> list[Late]:
    """Up to `limit` tasks that should have started by now, locked."""
    statement = (
        select(tasks.c.id, tasks.c.queue, tasks.c.task_type, tasks.c.concurrency_key)
        .where(_UNSTARTED, tasks.c.expires_at <= now)
        .order_by(tasks.c.expires_at, tasks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    )
    return [Late(*row) for row in await connection.execute(statement)]


async def expire(
    connection: AsyncConnection, ids: Collection[int], now: datetime, error: JsonText, fingerprint: str
) -> list[int]:
    """Fail these tasks as far as they have not started. Returns the ids of those that had not."""
    statement = (
        update(tasks)
        .where(tasks.c.id.in_(ids), tasks.c.started_at.is_(None), plain(tasks.c.status).in_(UNSTARTED))
        .values(
            status=Status.FAILED,
            failure_reason=FailureReason.EXPIRED,
            finished_at=now,
            error=error,
            fingerprint=fingerprint,
        )
        .returning(tasks.c.id)
    )
    return list(await connection.scalars(statement))


async def prunable(
    connection: AsyncConnection, status: Status, before: datetime, keyed_before: datetime, limit: int
) -> list[int]:
    """Up to `limit` tasks that ended as `status` before `before`, oldest first, locked. Those with an idempotency key stay
    until they were created before `keyed_before`."""
    statement = (
        select(tasks.c.id)
        .where(
            _FINISHED,
            tasks.c.status == literal_column(f"'{status}'"),
            tasks.c.finished_at < before,
            tasks.c.idempotency_key.is_(None) | (tasks.c.created_at < keyed_before),
        )
        .order_by(tasks.c.finished_at, tasks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(await connection.scalars(statement))


async def prune(connection: AsyncConnection, ids: Collection[int]) -> None:
    """Delete these tasks as far as they have ended."""
    await connection.execute(delete(tasks).where(tasks.c.id.in_(ids), plain(tasks.c.status).in_(TERMINAL)))


async def next_expiry(connection: AsyncConnection) -> datetime | None:
    """When the next task expires that has not started, None if none can."""
    return await connection.scalar(
        select(tasks.c.expires_at).where(_UNSTARTED).order_by(tasks.c.expires_at, tasks.c.id).limit(1)
    )


def _places_ahead(now: datetime, priority_step_seconds: float) -> Any:
    # Their rank tells when they became ready: a pending task is ready since then, and that cannot be later than now.
    ready_at = tasks.c.rank + tasks.c.priority * priority_step_seconds * 1000
    return select(tasks.c.id, tasks.c.status, tasks.c.priority, tasks.c.rank).where(
        _PENDING, ready_at > to_milliseconds(now + JUMP)
    )


def _waits_ahead(now: datetime) -> Any:
    # Only waits that an attempt's end has begun, as it began them: what a client has asked for is a moment, and stays.
    begun = task_attempts.c.finished_at + task_attempts.c.delay_seconds * 1000
    return (
        select(tasks.c.id, tasks.c.status, tasks.c.priority, tasks.c.rank, task_attempts.c.delay_seconds)
        .join(task_attempts, (task_attempts.c.task_id == tasks.c.id) & (task_attempts.c.lease == tasks.c.lease))
        .where(_DELAYED, task_attempts.c.finished_at > now + JUMP, func.abs(tasks.c.scheduled_at - begun) < 1000)
    )


async def waits_ahead(
    connection: AsyncConnection, now: datetime, priority_step_seconds: float, limit: int
) -> list[Wait]:
    """Up to `limit` tasks that became ready, and as many whose wait began, at a moment that has not come yet."""
    found: list[Wait] = []
    for statement in (_places_ahead(now, priority_step_seconds), _waits_ahead(now)):
        found += [Wait(*row) for row in await connection.execute(statement.limit(limit))]
    return found


_move = (
    update(tasks)
    .where(
        tasks.c.id == whole(_given, "id"),
        tasks.c.rank == whole(_given, "from_rank"),
        tasks.c.status.in_([literal_column(f"'{status}'") for status in WAITING]),
    )
    .values(rank=whole(_given, "rank"), scheduled_at=func.coalesce(whole(_given, "scheduled_at"), tasks.c.scheduled_at))
    .returning(tasks.c.id)
)


async def move(connection: AsyncConnection, moved: Sequence[Moved]) -> int:
    """Give these tasks their new places, as far as they still wait in the old ones. Returns how many."""
    rows = [
        {
            "id": one.id,
            "from_rank": one.from_rank,
            "rank": one.rank,
            "scheduled_at": None if one.scheduled_at is None else to_milliseconds(one.scheduled_at),
        }
        for one in moved
    ]
    return len(list(await connection.scalars(_move, {"rows": orjson.dumps(rows).decode()})))
