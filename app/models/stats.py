"""Statements that count. Each reads an index made for it, never the whole table."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.task import TERMINAL, Status
from app.models import tables
from app.models.tables import queues, tasks


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """What waits and runs in one queue. Due tasks count as ready, whether or not anyone has promoted them yet."""

    queue: str
    ready: int
    scheduled: int
    retrying: int
    running: int
    oldest_ready_at: datetime | None


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
    Status.RUNNING: tables.RUNNING,
    **dict.fromkeys(TERMINAL, tables.FINISHED),
}


def _in_status(status: Status) -> tuple[ColumnElement[bool], ...]:
    """The condition, with the words by which the store finds the index made for it."""
    indexed: ColumnElement[bool] = literal_column(_INDEXED_BY[status])
    return indexed, tasks.c.status == literal_column(f"'{status}'")


def _per_queue(status: Status, since: Any, now: datetime) -> Select[Any]:
    due: Any = case((tasks.c.scheduled_at <= now, 1), else_=0).label("due")
    if _INDEXED_BY[status] != tables.DELAYED:
        return (
            select(tasks.c.queue, literal_column("0"), func.count(), func.min(since))
            .where(*_in_status(status))
            .group_by(tasks.c.queue)
        )
    return (
        select(tasks.c.queue, due, func.count(), func.min(since))
        .where(*_in_status(status))
        .group_by(tasks.c.queue, literal_column("due"))
    )


async def queue_depths(connection: AsyncConnection, now: datetime) -> list[QueueDepth]:
    """One row for each queue that has unfinished tasks or a row of its own, by name."""
    counts: list[_Count] = []
    for status, since in (
        (Status.PENDING, func.coalesce(tasks.c.scheduled_at, tasks.c.created_at)),
        (Status.SCHEDULED, tasks.c.scheduled_at),
        (Status.RETRYING, tasks.c.scheduled_at),
        (Status.RUNNING, tasks.c.started_at),
    ):
        rows = await connection.execute(_per_queue(status, since, now))
        counts += [_Count(queue, status, bool(due), count, oldest) for queue, due, count, oldest in rows]
    names = {count.queue for count in counts} | set(await connection.scalars(select(queues.c.name)))
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
        oldest_ready_at=min((count.oldest for count in ready if count.oldest), default=None),
    )


async def finished_counts(connection: AsyncConnection, since: datetime | None = None) -> dict[Status, int]:
    """How many tasks ended in each way, since `since` or in all that is kept."""
    counts = {}
    for status in TERMINAL:
        statement = select(func.count()).select_from(tasks).where(*_in_status(status))
        if since is not None:
            statement = statement.where(tasks.c.finished_at > since)
        counts[status] = await connection.scalar(statement) or 0
    return counts


async def paused_queues(connection: AsyncConnection) -> set[str]:
    """Names of the queues that are paused."""
    return set(await connection.scalars(select(queues.c.name).where(queues.c.paused)))
