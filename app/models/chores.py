"""Statements for upkeep: what is due, what is over, what is old. Each works in small batches and may run anywhere."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, delete, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.task import FailureReason, JsonText, Status, Task
from app.models import tables
from app.models.tables import tasks
from app.models.types import Moment

_RUNNING: ColumnElement[bool] = literal_column(tables.RUNNING)
_DELAYED: ColumnElement[bool] = literal_column(tables.DELAYED)
_UNSTARTED: ColumnElement[bool] = literal_column(tables.UNSTARTED)
_FINISHED: ColumnElement[bool] = literal_column(tables.FINISHED)
_FIELDS = tuple(tasks.c[name] for name in Task.__dataclass_fields__)


async def expired_leases(connection: AsyncConnection, now: datetime, limit: int) -> list[Task]:
    """Running tasks whose lease is over, oldest first, locked; those that another sweeper holds are left to it."""
    statement = (
        select(*_FIELDS)
        .where(_RUNNING, tasks.c.lease_expires_at < now)
        .order_by(tasks.c.lease_expires_at, tasks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Task(*row) for row in await connection.execute(statement)]


_due = (
    select(tasks.c.id)
    .where(_DELAYED, tasks.c.scheduled_at <= bindparam("now", type_=Moment))
    .order_by(tasks.c.scheduled_at, tasks.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_promote = (
    update(tasks)
    .where(tasks.c.id.in_(_due), _DELAYED)
    .values(status=literal_column("'pending'"))
    .returning(tasks.c.queue)
)


async def promote_due(connection: AsyncConnection, now: datetime, limit: int) -> list[str]:
    """Make up to `limit` due tasks ready. Their rank was set when they were delayed. Returns the queue of each."""
    return list(await connection.scalars(_promote, {"now": now, "most": limit}))


async def next_due(connection: AsyncConnection) -> datetime | None:
    """When the next scheduled or retrying task is due, None if there is none."""
    return await connection.scalar(
        select(tasks.c.scheduled_at).where(_DELAYED).order_by(tasks.c.scheduled_at, tasks.c.id).limit(1)
    )


async def overdue(connection: AsyncConnection, now: datetime, limit: int) -> list[tuple[int, str]]:
    """Id and task type of up to `limit` tasks that should have started by now, locked."""
    statement = (
        select(tasks.c.id, tasks.c.task_type)
        .where(_UNSTARTED, tasks.c.expires_at <= now)
        .order_by(tasks.c.expires_at, tasks.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [(id_, task_type) for id_, task_type in await connection.execute(statement)]


async def expire(
    connection: AsyncConnection, ids: Collection[int], now: datetime, error: JsonText, fingerprint: str
) -> list[int]:
    """Fail these tasks as far as they have not started. Returns the ids of those that had not."""
    statement = (
        update(tasks)
        .where(tasks.c.id.in_(ids), _UNSTARTED)
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
    await connection.execute(delete(tasks).where(tasks.c.id.in_(ids), _FINISHED))


async def next_expiry(connection: AsyncConnection) -> datetime | None:
    """When the next task expires that has not started, None if none can."""
    return await connection.scalar(
        select(tasks.c.expires_at).where(_UNSTARTED).order_by(tasks.c.expires_at, tasks.c.id).limit(1)
    )
