"""Statements for what workers do with tasks: claim, renew, settle, report. A batch in each.

Every write to a running task names its lease: a worker that lost it matches no row and changes nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Select,
    Update,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    literal_column,
    null,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.clock import to_milliseconds
from app.core.lifecycle import Change
from app.core.task import Attempt, ClaimedTask, JsonText, Task, TaskError
from app.models import tables
from app.models.dialects import flag, given_rows, later_of, string, whole
from app.models.tables import checkpoints, task_attempts, tasks
from app.models.types import Moment

Lease = tuple[int, int]
"""(task id, lease): the right to write to one attempt."""

_PENDING: ColumnElement[bool] = literal_column(tables.PENDING)

_given = given_rows("rows")
_FIELDS = tuple(tasks.c[name] for name in Task.__dataclass_fields__)
_held = (
    (tasks.c.id == whole(_given, "id"))
    & (tasks.c.lease == whole(_given, "lease"))
    & (tasks.c.status == literal_column("'running'"))
)


@dataclass(frozen=True, slots=True)
class Head:
    """The first waiting task of one (queue, task_type) pair: its place in the order of work. `breakers`: some circuit
    breaker has a row, so whoever claims must look at those."""

    queue: str
    task_type: str
    rank: int
    breakers: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One attempt that returned. `started_at` and `finished_at` are of its code: it may have begun later than it was
    claimed, and ended earlier than it is written. `progress` is its last word, None to leave what is stored."""

    id: int
    lease: int
    result: JsonText
    started_at: datetime
    finished_at: datetime
    progress: JsonText | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease that was still ours. `cancel_requested` asks us to stop the attempt."""

    id: int
    lease: int
    cancel_requested: bool


# Skips from pair to pair through the index: the next type of the same queue, else the first of the next queue. Two seeks
# for each pair that waits, however many tasks wait in it. (One comparison of row values, `(queue, task_type) > (...)`,
# would do for PostgreSQL, but SQLite seeks by its first column alone and reads the whole queue: 14 ms at 100,000 rows.)
_heads = text("""
WITH RECURSIVE heads (queue, task_type, rank) AS (
  SELECT * FROM (
    SELECT queue, task_type, rank FROM tasks WHERE status = 'pending' ORDER BY queue, task_type, rank, id LIMIT 1
  ) AS first
  UNION ALL
  SELECT following.queue, following.task_type, following.rank
  FROM heads JOIN tasks AS following ON following.id = COALESCE(
    (SELECT id FROM tasks WHERE status = 'pending' AND queue = heads.queue AND task_type > heads.task_type
     ORDER BY queue, task_type, rank, id LIMIT 1),
    (SELECT id FROM tasks WHERE status = 'pending' AND queue > heads.queue
     ORDER BY queue, task_type, rank, id LIMIT 1)
  )
)
SELECT queue, task_type, rank, EXISTS (SELECT 1 FROM breakers) FROM heads
WHERE NOT EXISTS (SELECT 1 FROM queues WHERE name = heads.queue AND paused)
""")


async def waiting_heads(connection: AsyncConnection) -> list[Head]:
    """The first waiting task of every (queue, task_type) pair that has any, paused queues left out."""
    return [Head(row[0], row[1], row[2], bool(row[3])) for row in await connection.execute(_heads)]


@cache
def _claim(pairs: int) -> Update:
    """Take the lowest ranks over `pairs` (queue, task_type) pairs: a LIMITed range of the index for each, merged."""
    arms = [_first_of_pair(number) for number in range(pairs)]
    merged = union_all(*(select(arm.c.id, arm.c.rank) for arm in (arm.subquery() for arm in arms))).subquery("merged")
    chosen = select(merged.c.id).order_by(merged.c.rank, merged.c.id).limit(bindparam("room")).cte("chosen")
    return (
        update(tasks)
        .where(tasks.c.id.in_(select(chosen.c.id)), tasks.c.status == literal_column("'pending'"))
        .values(
            status=literal_column("'running'"),
            attempts=tasks.c.attempts + literal_column("1"),
            lease=tasks.c.lease + literal_column("1"),
            worker_id=bindparam("worker"),
            started_at=bindparam("now", type_=Moment),
            lease_expires_at=bindparam("until", type_=Moment),
            progress=null(),
        )
        .returning(
            tasks.c.id,
            tasks.c.lease,
            tasks.c.task_type,
            tasks.c.queue,
            tasks.c.payload,
            tasks.c.attempts,
            tasks.c.timeout_seconds,
            tasks.c.rank,
            tasks.c.runs_alone,
            tasks.c.traceparent,
        )
    )


def _first_of_pair(number: int) -> Select[Any]:
    return (
        select(tasks.c.id, tasks.c.rank)
        .where(
            _PENDING,
            tasks.c.queue == bindparam(f"queue_{number}"),
            tasks.c.task_type == bindparam(f"type_{number}"),
            tasks.c.attempts < tasks.c.max_attempts,
            tasks.c.expires_at.is_(None)
            | (tasks.c.expires_at > bindparam("now", type_=Moment))
            | tasks.c.started_at.is_not(None),
        )
        .order_by(tasks.c.rank, tasks.c.id)
        .limit(bindparam("room"))
        .with_for_update(skip_locked=True)
    )


async def claim(
    connection: AsyncConnection,
    pairs: Sequence[tuple[str, str]],
    room: int,
    worker_id: str,
    now: datetime,
    until: datetime,
) -> list[ClaimedTask]:
    """Lease up to `room` tasks of these (queue, task_type) pairs to `worker_id` until `until`; lowest rank first."""
    values: dict[str, Any] = {"room": room, "worker": worker_id, "now": now, "until": until}
    for number, (queue, task_type) in enumerate(pairs):
        values |= {f"queue_{number}": queue, f"type_{number}": task_type}
    claimed = [ClaimedTask(*row) for row in await connection.execute(_claim(len(pairs)), values)]
    return sorted(claimed, key=lambda task: (task.rank, task.id))


_renew = (
    update(tasks)
    .where(_held)
    .values(lease_expires_at=bindparam("until", type_=Moment))
    .returning(tasks.c.id, tasks.c.lease, tasks.c.cancel_requested_at.is_not(None))
)


async def renew(connection: AsyncConnection, leases: Iterable[Lease], until: datetime) -> list[Renewal]:
    """Extend these leases. What does not come back is lost. An expired lease that nobody swept is still good."""
    rows = await connection.execute(_renew, {"rows": _lease_rows(leases), "until": until})
    return [Renewal(id_, lease, bool(asked)) for id_, lease, asked in rows]


def _lease_rows(leases: Iterable[Lease]) -> str:
    return orjson.dumps([{"id": id_, "lease": lease} for id_, lease in leases]).decode()


_get_held = select(*_FIELDS).join_from(tasks, _given, _held).with_for_update(of=tasks)


async def held(connection: AsyncConnection, leases: Iterable[Lease]) -> list[Task]:
    """The running tasks among these that are still under the given lease, locked."""
    rows = await connection.execute(_get_held, {"rows": _lease_rows(leases)})
    return [Task(*row) for row in rows]


NOTHING: Mapping[int, JsonText | None] = MappingProxyType({})
_last_word = func.coalesce(string(_given, "progress"), tasks.c.progress)

_complete = (
    update(tasks)
    .where(_held)
    .values(
        status=literal_column("'completed'"),
        result=string(_given, "result"),
        error=null(),
        # With the end, not before it: two statements could pass each other, and the last word would be lost.
        progress=_last_word,
        lease_expires_at=null(),
        runs_alone=false(),
        # The wall clock may have been set back meanwhile: a task never ends before it began.
        started_at=later_of(tasks.c.started_at, whole(_given, "started_at")),
        finished_at=later_of(tasks.c.started_at, whole(_given, "finished_at")),
    )
    .returning(tasks.c.id)
)


async def complete(connection: AsyncConnection, completions: Sequence[Completion]) -> set[int]:
    """Finish these attempts. Returns the ids that were still ours."""
    rows = [
        {
            "id": one.id,
            "lease": one.lease,
            "result": one.result,
            "started_at": to_milliseconds(one.started_at),
            "finished_at": to_milliseconds(one.finished_at),
            "progress": one.progress,
        }
        for one in completions
    ]
    return set(await connection.scalars(_complete, {"rows": orjson.dumps(rows).decode()}))


_apply = (
    update(tasks)
    .where(_held)
    .values(
        status=string(_given, "status"),
        attempts=whole(_given, "attempts"),
        rank=whole(_given, "rank"),
        scheduled_at=func.coalesce(whole(_given, "scheduled_at"), tasks.c.scheduled_at),
        finished_at=whole(_given, "finished_at"),
        result=string(_given, "result"),
        error=func.coalesce(string(_given, "error"), tasks.c.error),
        failure_reason=string(_given, "failure_reason"),
        fingerprint=string(_given, "fingerprint"),
        deaths=whole(_given, "deaths"),
        runs_alone=flag(_given, "runs_alone"),
        lease_expires_at=null(),
        # What an attempt said of itself stays with a task that has ended, and means nothing to the next attempt.
        progress=case((string(_given, "finished_at").is_not(None), _last_word), else_=null()),
    )
    .returning(tasks.c.id)
)


async def apply(
    connection: AsyncConnection, changes: Sequence[Change], progress: Mapping[int, JsonText | None] = NOTHING
) -> set[int]:
    """Write what `lifecycle.settle` decided, with the last progress by task id. Returns the ids that were still ours."""
    rows = [
        {
            "id": one.id,
            "lease": one.lease,
            "status": one.status,
            "attempts": one.attempts,
            "rank": one.rank,
            "scheduled_at": _stored(one.scheduled_at),
            "finished_at": _stored(one.finished_at),
            "result": one.result,
            "error": error_json(one.error),
            "failure_reason": one.failure_reason,
            "fingerprint": one.fingerprint,
            "deaths": one.deaths,
            "runs_alone": int(one.runs_alone),
            "progress": progress.get(one.id),
        }
        for one in changes
    ]
    return set(await connection.scalars(_apply, {"rows": orjson.dumps(rows).decode()}))


def _stored(moment: datetime | None) -> int | None:
    return None if moment is None else to_milliseconds(moment)


def error_json(error: TaskError | None) -> JsonText | None:
    """How a TaskError is stored and shown: {"type", "message", "attempt", "at", "traceback"?}."""
    if error is None:
        return None
    fields = asdict(error)
    if error.traceback is None:
        del fields["traceback"]
    return JsonText(orjson.dumps(fields, option=orjson.OPT_UTC_Z).decode())


async def record_attempts(connection: AsyncConnection, attempts: Sequence[Attempt]) -> None:
    """Add ended attempts to the history, one row each."""
    await connection.execute(insert(task_attempts), [asdict(one) for one in attempts])


_save_progress = update(tasks).where(_held).values(progress=string(_given, "progress")).returning(tasks.c.id)


async def save_progress(connection: AsyncConnection, progress: Sequence[tuple[int, int, JsonText]]) -> set[int]:
    """Store the newest (id, lease, progress) of running attempts. Returns the ids that were still ours."""
    rows = [{"id": id_, "lease": lease, "progress": value} for id_, lease, value in progress]
    return set(await connection.scalars(_save_progress, {"rows": orjson.dumps(rows).decode()}))


async def add_checkpoint(connection: AsyncConnection, task_id: int, lease: int, data: JsonText) -> bool:
    """Append a checkpoint while the lease holds. False if it does not."""
    following = select(func.coalesce(func.max(checkpoints.c.seq), 0) + 1).where(checkpoints.c.task_id == task_id)
    held_now = select(tasks.c.id, following.scalar_subquery(), bindparam("data", data)).where(
        tasks.c.id == task_id, tasks.c.lease == lease, tasks.c.status == literal_column("'running'")
    )
    statement = insert(checkpoints).from_select(["task_id", "seq", "data"], held_now)
    return (await connection.execute(statement)).rowcount == 1


async def checkpoints_of(connection: AsyncConnection, task_ids: Collection[int]) -> dict[int, list[JsonText]]:
    """What earlier attempts of these tasks stored, oldest first; tasks without any are missing."""
    statement = (
        select(checkpoints.c.task_id, checkpoints.c.data)
        .where(checkpoints.c.task_id.in_(task_ids))
        .order_by(checkpoints.c.task_id, checkpoints.c.seq)
    )
    found: dict[int, list[JsonText]] = {}
    for task_id, data in await connection.execute(statement):
        found.setdefault(task_id, []).append(data)
    return found


async def drop_checkpoints(connection: AsyncConnection, task_ids: Collection[int]) -> None:
    """Forget the checkpoints of tasks that have ended."""
    await connection.execute(delete(checkpoints).where(checkpoints.c.task_id.in_(task_ids)))
