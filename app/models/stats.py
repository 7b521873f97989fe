"""Statements that count. Each reads an index made for it, never the whole table."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, bindparam, case, func, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.diagnosis import Waiting
from app.core.task import TERMINAL, Status
from app.models import tables
from app.models.tables import queues, tasks
from app.models.tasks import of_tenant
from app.models.types import Moment


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What waits and runs in one queue. Due tasks count as ready, whether or not anyone has promoted them yet; `blocked` ones
    wait for a place of their concurrency key."""

    queue: str
    ready: int
    scheduled: int
    retrying: int
    running: int
    oldest_ready_at: datetime | None
    blocked: int = 0


@dataclass(frozen=True, slots=True)
class _Count:
    queue: str
    status: Status
    due: bool
    count: int
    oldest: datetime | None


_INDEXED_BY = {
    Status.PENDING: tables.PENDING,
    Status.SCHEDULED: tables.DELAYED,
    Status.RETRYING: tables.DELAYED,
    Status.RUNNING: tables.LEASED,
    Status.BLOCKED: tables.BLOCKED,
    **dict.fromkeys(TERMINAL, tables.FINISHED),
}


def _in_status(status: Status) -> tuple[ColumnElement[bool], ...]:
    """The condition, with the words by which the store finds the index made for it."""
    indexed: ColumnElement[bool] = literal_column(_INDEXED_BY[status])
    return indexed, tasks.c.status == literal_column(f"'{status}'")


def _per_queue(status: Status, since: Any, whose: tuple[ColumnElement[bool], ...]) -> Select[Any]:
    """Queue, status, whether it is due, number and earliest moment."""
    named: ColumnElement[str] = literal_column(f"'{status}'")
    if _INDEXED_BY[status] != tables.DELAYED:
        return (
            select(tasks.c.queue, named, literal_column("0"), func.count(), func.min(since))
            .where(*_in_status(status), *whose)
            .group_by(tasks.c.queue)
        )
    due: Any = case((tasks.c.scheduled_at <= bindparam("now", type_=Moment), 1), else_=0).label("due")
    return (
        select(tasks.c.queue, named, due, func.count(), func.min(since))
        .where(*_in_status(status), *whose)
        .group_by(tasks.c.queue, literal_column("due"))
    )


def _unfinished(*whose: ColumnElement[bool]) -> CompoundSelect[Any]:
    """One statement sees one moment: a task that changes its state between two would be counted twice, or not at all."""
    return union_all(
        _per_queue(Status.PENDING, func.coalesce(tasks.c.scheduled_at, tasks.c.created_at), whose),
        _per_queue(Status.SCHEDULED, tasks.c.scheduled_at, whose),
        _per_queue(Status.RETRYING, tasks.c.scheduled_at, whose),
        _per_queue(Status.RUNNING, tasks.c.started_at, whose),
        _per_queue(Status.BLOCKED, tasks.c.created_at, whose),
    )


_indexed: ColumnElement[bool] = literal_column(tables.OF_A_TENANT)
_of_all, _of_one = _unfinished(), _unfinished(tasks.c.tenant == bindparam("tenant"), _indexed)


async def queue_depths(connection: AsyncConnection, now: datetime, tenant: str = "") -> list[QueueDepth]:
    """One row for each queue that has unfinished tasks or a row of its own, by name; for a tenant, its own tasks alone."""
    rows = await connection.execute(
        _of_one if tenant else _of_all, {"now": now} | ({"tenant": tenant} if tenant else {})
    )
    counts = [_Count(queue, Status(word), bool(due), count, oldest) for queue, word, due, count, oldest in rows]
    names = {count.queue for count in counts}
    if not tenant:
        names |= set(await connection.scalars(select(queues.c.name)))
    return [_depth(name, [count for count in counts if count.queue == name]) for name in sorted(names)]


def _depth(queue: str, counts: list[_Count]) -> QueueDepth:
    def total(status: Status, due: bool = False) -> int:
        return sum(count.count for count in counts if count.status is status and count.due == due)

    ready = [count for count in counts if count.status is Status.PENDING or count.due]
    return QueueDepth(
        queue=queue,
        ready=sum(count.count for count in ready),
        scheduled=total(Status.SCHEDULED),
        retrying=total(Status.RETRYING),
        running=total(Status.RUNNING),
        blocked=total(Status.BLOCKED),
        oldest_ready_at=min((count.oldest for count in ready if count.oldest), default=None),
    )


_lately = (
    select(tasks.c.queue, tasks.c.started_at, tasks.c.finished_at)
    .where(*_in_status(Status.COMPLETED), tasks.c.finished_at > bindparam("since", type_=Moment))
    .order_by(tasks.c.finished_at.desc())
    .limit(bindparam("most"))
)


async def completed_lately(
    connection: AsyncConnection, since: datetime, most: int
) -> list[tuple[str, datetime | None, datetime]]:
    """Queue, start and end of the last up to `most` tasks that completed after `since`, newest first."""
    return [(*row,) for row in await connection.execute(_lately, {"since": since, "most": most})]


async def finished_counts(
    connection: AsyncConnection, since: datetime | None = None, tenant: str = ""
) -> dict[Status, int]:
    """How many tasks ended in each way, since `since` or in all that is kept; of one tenant, if it is named."""
    counts = {}
    for status in TERMINAL:
        statement = select(func.count()).select_from(tasks).where(*_in_status(status), *of_tenant(tenant))
        if since is not None:
            statement = statement.where(tasks.c.finished_at > since)
        counts[status] = await connection.scalar(statement) or 0
    return counts


async def paused_queues(connection: AsyncConnection) -> set[str]:
    """Names of the queues that are paused."""
    return set(await connection.scalars(select(queues.c.name).where(queues.c.paused)))


async def ready_pairs(connection: AsyncConnection, now: datetime) -> list[Waiting]:
    """The tasks that could start now, by queue and task type. Paused queues are left out."""
    ready_at = func.coalesce(tasks.c.scheduled_at, tasks.c.created_at)
    pair = (tasks.c.queue, tasks.c.task_type)
    pending = select(*pair, func.count(), func.min(ready_at)).where(*_in_status(Status.PENDING)).group_by(*pair)
    due = (
        select(*pair, func.count(), func.min(tasks.c.scheduled_at))
        .where(literal_column(tables.DELAYED), tasks.c.scheduled_at <= now)
        .group_by(*pair)
    )
    paused = await paused_queues(connection)
    found: dict[tuple[str, str], Waiting] = {}
    for statement in (pending, due):
        for queue, task_type, count, oldest in await connection.execute(statement):
            before = found.get((queue, task_type), Waiting(queue, task_type, 0, oldest))
            oldest = min(before.oldest_ready_at, oldest)
            found[queue, task_type] = Waiting(queue, task_type, before.ready + count, oldest)
    return [one for key, one in sorted(found.items()) if key[0] not in paused]
