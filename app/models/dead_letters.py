"""Statements for dead letters: tasks that failed and that nobody has dealt with."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Float,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import to_milliseconds
from app.core.task import FailureReason, JsonText, Task
from app.core.values import field_names
from app.models import tables
from app.models.dialects import plain
from app.models.tables import tasks
from app.models.tasks import of_tenant
from app.models.types import Moment, RowId

_DEAD: ColumnElement[bool] = literal_column(f"({tables.DEAD})")
_BY_ID = (plain(tasks.c.status) == literal_column("'failed'"), tasks.c.resolved_at.is_(None))
"""The same of tasks that are meant by their ids."""
_INDEXED: ColumnElement[bool] = literal_column(tables.UNHAPPY)
"""The index of all that failed has them in the order of their ids; with a fingerprint its own index has."""
_SUMMARY = tuple(
    literal_column("NULL").label(name) if name in ("payload", "result") else tasks.c[name] for name in field_names(Task)
)


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters are meant; None is no limit."""

    task_type: str | None = None
    queue: str | None = None
    failure_reason: FailureReason | None = None
    fingerprint: str | None = None
    ids: tuple[int, ...] | None = None
    tenant: str = ""

    @property
    def everything(self) -> bool:
        """True if nothing was asked for, which means all that the tenant has."""
        return all(getattr(self, field.name) is None for field in fields(self) if field.name != "tenant")


class Chosen(NamedTuple):
    """A dead letter that something is to be done with."""

    id: int
    unique_key: str | None
    tenant: str
    queue: str


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """Dead letters with one cause. `error` is that of the newest; `task_ids` are the newest few."""

    fingerprint: str
    task_type: str
    count: int
    first_failed_at: datetime
    last_failed_at: datetime
    error: JsonText | None = None
    task_ids: tuple[int, ...] = ()


def _matching(wanted: DeadFilter) -> list[ColumnElement[bool]]:
    conditions = [_DEAD, *of_tenant(wanted.tenant)]
    for name in ("task_type", "queue", "failure_reason", "fingerprint"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(tasks.c[name] == value)
    if wanted.ids is not None:
        conditions.append(tasks.c.id.in_(wanted.ids))
    return conditions


async def search(
    connection: AsyncConnection, wanted: DeadFilter, limit: int, before_id: int | None = None
) -> list[Task]:
    """Up to `limit` dead letters, newest first, without payload and result."""
    statement = select(*_SUMMARY).where(*_matching(wanted))
    if before_id is not None:
        statement = statement.where(tasks.c.id < before_id)
    rows = await connection.execute(statement.where(_INDEXED).order_by(tasks.c.id.desc()).limit(limit))
    return [Task(*row) for row in rows]


async def count(connection: AsyncConnection, wanted: DeadFilter) -> int:
    """How many there are."""
    found: int = await connection.scalar(select(func.count()).select_from(tasks).where(*_matching(wanted))) or 0
    return found


async def groups(connection: AsyncConnection, wanted: DeadFilter, limit: int, samples: int) -> list[CauseGroup]:
    """The `limit` largest groups, with the ids of up to `samples` of the newest of each."""
    size = func.count()
    statement = (
        select(
            tasks.c.fingerprint,
            func.min(tasks.c.task_type),
            size,
            func.min(tasks.c.finished_at),
            func.max(tasks.c.finished_at),
        )
        .where(*_matching(wanted), tasks.c.fingerprint.is_not(None))
        .group_by(tasks.c.fingerprint)
        .order_by(size.desc(), tasks.c.fingerprint)
        .limit(limit)
    )
    found = [CauseGroup(*row) for row in await connection.execute(statement)]
    fingerprints = [group.fingerprint for group in found]
    newest = await _newest(connection, fingerprints, samples, wanted.tenant) if found else {}
    return [
        CauseGroup(
            *(group.fingerprint, group.task_type, group.count, group.first_failed_at, group.last_failed_at),
            error=newest[group.fingerprint][0][1],
            task_ids=tuple(id_ for id_, _ in newest[group.fingerprint]),
        )
        for group in found
        if group.fingerprint in newest
    ]


async def _newest(
    connection: AsyncConnection, fingerprints: Sequence[str], samples: int, tenant: str
) -> dict[str, list[tuple[int, JsonText]]]:
    arms = [
        select(tasks.c.fingerprint, tasks.c.id, tasks.c.error)
        .where(_DEAD, tasks.c.fingerprint == fingerprint, *of_tenant(tenant))
        .order_by(tasks.c.id.desc())
        .limit(samples)
        .subquery()
        for fingerprint in fingerprints
    ]
    found: dict[str, list[tuple[int, JsonText]]] = {}
    for fingerprint, id_, error in await connection.execute(union_all(*(select(arm) for arm in arms))):
        found.setdefault(fingerprint, []).append((id_, error))
    return {fingerprint: sorted(rows, reverse=True) for fingerprint, rows in found.items()}


async def choose(connection: AsyncConnection, wanted: DeadFilter, after_id: int, limit: int) -> list[Chosen]:
    """Up to `limit` dead letters after `after_id`, lowest id first, locked. One that somebody else holds
    is waited for: he may only have been trying."""
    statement = (
        select(tasks.c.id, tasks.c.unique_key, tasks.c.tenant, tasks.c.queue)
        .where(*_matching(wanted), _INDEXED, tasks.c.id > after_id)
        .order_by(tasks.c.id)
        .limit(limit)
        .with_for_update()
    )
    return [Chosen(*row) for row in await connection.execute(statement)]


# As `rank_of` has it, for tasks that are ready now.
_rank_now = bindparam("now_milliseconds", type_=RowId) - tasks.c.priority * bindparam("step_milliseconds", type_=RowId)
_requeue = (
    update(tasks)
    .where(tasks.c.id.in_(bindparam("ids", expanding=True)), *_BY_ID)
    .values(
        status=case(
            (tasks.c.concurrency_key.is_(None), literal_column("'pending'")), else_=literal_column("'blocked'")
        ),
        attempts=0,
        deaths=0,
        rank=_rank_now,
        scheduled_at=null(),
        finished_at=null(),
        expires_at=null(),
        failure_reason=null(),
        cancel_requested_at=null(),
        progress=null(),
        retry_until=cast(
            bindparam("now_milliseconds", type_=RowId) + cast(tasks.c.retry_for_seconds, Float) * 1000, RowId
        ),
    )
    .returning(tasks.c.id, tasks.c.concurrency_key)
)


async def requeue(
    connection: AsyncConnection, ids: Collection[int], now: datetime, priority_step_seconds: float
) -> list[tuple[int, str | None]]:
    """Make these ready again (or blocked), as a person's retry does. Returns id and concurrency key of those that were dead
    letters still."""
    values: dict[str, Any] = {
        "ids": list(ids),
        "now_milliseconds": to_milliseconds(now),
        "step_milliseconds": round(priority_step_seconds * 1000),
    }
    return [(id_, key) for id_, key in await connection.execute(_requeue, values)]


async def resolve(connection: AsyncConnection, ids: Collection[int], now: datetime, note: str | None) -> list[int]:
    """Say that somebody dealt with these. Returns the ids of those that were dead letters still."""
    statement = (
        update(tasks)
        .where(tasks.c.id.in_(ids), *_BY_ID)
        .values(resolved_at=bindparam("now", now, type_=Moment), resolution=note)
        .returning(tasks.c.id)
    )
    return list(await connection.scalars(statement))
