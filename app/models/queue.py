"""Statements for what workers do with tasks: claim, renew, settle, report. A batch in each.

Every write to a running task names its lease: a worker that lost it matches no row and changes nothing.

Where many write at once (PostgreSQL) rows are locked in the order of their ids, so that two batches with tasks in common
wait for each other and never in a circle; and no more strongly than needed (NO KEY UPDATE), so that adding a child of a task
does not wait for its parent's lock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Update,
    bindparam,
    case,
    cast,
    delete,
    exists,
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
from app.core.values import field_names, value
from app.models import tables
from app.models.dialects import flag, given_rows, has_many_writers, later_of, plain, string, whole
from app.models.tables import checkpoints, task_attempts, tasks
from app.models.types import Moment
from app.models.webhooks import is_awaited

Lease = tuple[int, int]
"""(task id, lease): the right to write to one attempt."""

_PENDING: ColumnElement[bool] = literal_column(tables.PENDING)

_given = given_rows("rows")
_FIELDS = tuple(tasks.c[name] for name in field_names(Task))
_held = (
    (tasks.c.id == whole(_given, "id"))
    & (tasks.c.lease == whole(_given, "lease"))
    & (tasks.c.status == literal_column("'running'"))
)


@dataclass(frozen=True, slots=True)
class Head:
    """The first waiting task of one (queue, task_type) pair: its place in the order of work. `breakers`: some circuit
    breaker has a row, so whoever claims must look at those; `limited`: so must it at the queue's limits."""

    queue: str
    task_type: str
    rank: int
    breakers: bool = False
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """What there is to begin with: the first waiting task of every pair that has any, and when the first of those that wait
    for a moment is due, None if none does."""

    heads: Sequence[Head] = ()
    due_at: datetime | None = None


@value
class Completion:
    """One attempt that returned. `started_at` and `run_seconds` are of its code: it may have begun later than it was
    claimed, and ended earlier than it is written. `progress` is its last word, None to leave what is stored."""

    id: int
    lease: int
    result: JsonText
    started_at: datetime
    run_seconds: float = 0.0
    progress: JsonText | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease that was still ours. `cancel_requested` asks us to stop the attempt."""

    id: int
    lease: int
    cancel_requested: bool


SEEN_BESIDES = 16
"""So many more than twice the room are looked at where others claim too: so much may be in their hands."""

# Skips from pair to pair through the index: the next type of the same queue, else the first of the next queue. Two seeks
# for each pair that waits, however many tasks wait in it. (One comparison of row values, `(queue, task_type) > (...)`,
# would do for PostgreSQL, but SQLite seeks by its first column alone and reads the whole queue: 14 ms at 100,000 rows.)
# One row in any case: where nothing waits it has the moment alone.
_front = text("""
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
SELECT due_at, waiting.queue, task_type, rank, EXISTS (SELECT 1 FROM breakers), limited
FROM (SELECT (
  SELECT scheduled_at FROM tasks WHERE status IN ('scheduled', 'retrying') ORDER BY scheduled_at, id LIMIT 1
) AS due_at) AS due
LEFT JOIN (
  SELECT heads.queue, task_type, rank, max_running IS NOT NULL OR rate_limit IS NOT NULL AS limited
  FROM heads LEFT JOIN queues ON queues.name = heads.queue
  WHERE paused IS NULL OR NOT paused
) AS waiting ON true
""").columns(due_at=Moment)


async def front(connection: AsyncConnection) -> Front:
    """What waits, paused queues left out, and what is to come."""
    rows = (await connection.execute(_front)).all()
    heads = [Head(row[1], row[2], row[3], bool(row[4]), bool(row[5])) for row in rows if row[1] is not None]
    return Front(heads, rows[0][0])


@cache
def _claim(pairs: int, shared: bool, limited: bool) -> Update:
    """Take the lowest ranks over `pairs` (queue, task_type) pairs: a LIMITed range of the index for each, merged.

    `limited`: of some queues only so many, the lowest ranks over all their types.

    `shared`: others may be claiming at this moment. Then more are looked at than are wanted, and of those the first that
    nobody has locked are taken. To lock while looking would lock up to `room` for each pair, and hide them from others.
    """
    arms = [_first_of_pair(number, limited).subquery() for number in range(pairs)]
    merged: Any = union_all(*(select(*arm.c) for arm in arms)).subquery("merged")
    if limited:
        place = func.row_number().over(partition_by=merged.c.queue, order_by=(merged.c.rank, merged.c.id))
        placed = select(*merged.c, place.label("place")).subquery("placed")
        merged = select(placed.c.id, placed.c.rank).where(placed.c.place <= placed.c.most).subquery("within")
    seen = select(merged.c.id).order_by(merged.c.rank, merged.c.id).limit(bindparam("seen"))
    chosen = seen.cte("chosen")
    if shared:
        first = seen.add_columns(merged.c.rank).cte("seen").prefix_with("MATERIALIZED")
        chosen = (
            select(tasks.c.id)
            .join_from(first, tasks, tasks.c.id == first.c.id)
            .where(plain(tasks.c.status) == literal_column("'pending'"))
            .order_by(first.c.rank, first.c.id)
            .limit(bindparam("room"))
            .with_for_update(of=tasks, skip_locked=True, key_share=True)
            .cte("chosen")
            # As a subquery it may be run once for each row it is compared with, and take more than its limit together.
            .prefix_with("MATERIALIZED")
        )
    return (
        update(tasks)
        .where(tasks.c.id.in_(select(chosen.c.id)), plain(tasks.c.status) == literal_column("'pending'"))
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
            tasks.c.priority,
            tasks.c.concurrency_key,
            tasks.c.tracestate,
            tasks.c.tenant,
        )
    )


def _first_of_pair(number: int, limited: bool) -> Select[Any]:
    most = cast(bindparam(f"most_{number}"), Integer).label("most")
    return (
        select(tasks.c.id, tasks.c.rank, *((tasks.c.queue, most) if limited else ()))
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
        .limit(bindparam("seen"))
    )


_in_order = attrgetter("rank", "id")
UNLIMITED: Mapping[str, int] = MappingProxyType({})


async def claim(
    connection: AsyncConnection,
    pairs: Sequence[tuple[str, str]],
    room: int,
    worker_id: str,
    now: datetime,
    until: datetime,
    most: Mapping[str, int] = UNLIMITED,
) -> list[ClaimedTask]:
    """Lease up to `room` tasks of these (queue, task_type) pairs to `worker_id` until `until`; lowest rank first, of each queue
    up to `most`. Fewer than there are, even none, while others claim the same ones."""
    shared = has_many_writers(connection)
    values: dict[str, Any] = {"seen": room, "worker": worker_id, "now": now, "until": until}
    if shared:
        values |= {"room": room, "seen": 2 * room + SEEN_BESIDES}
    for number, (queue, task_type) in enumerate(pairs):
        values |= {f"queue_{number}": queue, f"type_{number}": task_type}
        if most:
            values[f"most_{number}"] = most.get(queue, room)
    statement = _claim(len(pairs), shared, bool(most))
    # All at once: row by row each of them is fetched through five functions.
    rows = (await connection.execute(statement, values)).all()
    return sorted([ClaimedTask(*row) for row in rows], key=_in_order)


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
    return _rows([{"id": id_, "lease": lease} for id_, lease in leases])


def _rows(rows: list[dict[str, Any]]) -> str:
    """As `given_rows` reads them, lowest id first: in that order they are locked."""
    return orjson.dumps(sorted(rows, key=itemgetter("id", "lease"))).decode()


_get_held = select(*_FIELDS).join_from(tasks, _given, _held).with_for_update(of=tasks, key_share=True)


async def held(connection: AsyncConnection, leases: Iterable[Lease]) -> list[Task]:
    """The running tasks among these that are still under the given lease, locked."""
    rows = await connection.execute(_get_held, {"rows": _lease_rows(leases)})
    return [Task(*row) for row in rows]


NOTHING: Mapping[int, JsonText | None] = MappingProxyType({})

# Arrays, not objects: most tasks end here, and to look for six names in each took a quarter of the statement's time.
_ID, _LEASE, _RESULT, _STARTED_AT, _FINISHED_AT, _PROGRESS = range(6)
_held_by_place = (
    (tasks.c.id == whole(_given, _ID))
    & (tasks.c.lease == whole(_given, _LEASE))
    & (tasks.c.status == literal_column("'running'"))
)
_complete = (
    update(tasks)
    .where(_held_by_place)
    .values(
        status=literal_column("'completed'"),
        result=string(_given, _RESULT),
        error=null(),
        # With the end, not before it: two statements could pass each other, and the last word would be lost.
        progress=func.coalesce(string(_given, _PROGRESS), tasks.c.progress),
        lease_expires_at=null(),
        runs_alone=false(),
        # The wall clock may have been set back meanwhile: a task never ends before it began.
        started_at=later_of(tasks.c.started_at, whole(_given, _STARTED_AT)),
        finished_at=later_of(tasks.c.started_at, whole(_given, _FINISHED_AT)),
    )
    .returning(tasks.c.id, tasks.c.lease, is_awaited)
)


async def complete(connection: AsyncConnection, completions: Sequence[Completion]) -> dict[Lease, bool]:
    """Finish these attempts. Returns the leases that were still ours, and of each whether somebody may have to be told."""
    given = []
    for one in completions:
        at = to_milliseconds(one.started_at)
        given.append((one.id, one.lease, one.result, at, at + int(1000 * one.run_seconds), one.progress))
    rows = orjson.dumps(sorted(given, key=itemgetter(_ID, _LEASE))).decode()
    written = (await connection.execute(_complete, {"rows": rows})).all()
    return {(id_, lease): bool(told) for id_, lease, told in written}


_last_word = func.coalesce(string(_given, "progress"), tasks.c.progress)
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
    .returning(tasks.c.id, is_awaited)
)


async def apply(
    connection: AsyncConnection, changes: Sequence[Change], progress: Mapping[int, JsonText | None] = NOTHING
) -> dict[int, bool]:
    """Write what `lifecycle.settle` decided, with the last progress by task id. Returns the ids that were still ours, and of
    each whether somebody would have to be told of its end."""
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
    return {id_: bool(told) for id_, told in await connection.execute(_apply, {"rows": _rows(rows)})}


_put_off = (
    update(tasks)
    .where(_held)
    .values(
        status=literal_column("'scheduled'"),
        attempts=tasks.c.attempts - literal_column("1"),
        # Nobody has seen this lease: the transaction that raised the number is the one that takes it back.
        lease=tasks.c.lease - literal_column("1"),
        scheduled_at=whole(_given, "until"),
        lease_expires_at=null(),
        # Nothing of it has run. What never began may expire, so it must not look as if it had.
        started_at=case(
            (
                exists(select(literal_column("1")).where(task_attempts.c.task_id == tasks.c.id).correlate(tasks)),
                tasks.c.started_at,
            ),
            else_=null(),
        ),
    )
)


async def put_off(connection: AsyncConnection, claimed: Iterable[tuple[ClaimedTask, datetime]]) -> None:
    """Give back, in the transaction that claimed them, tasks that may not run before a moment. The attempt is not charged, and
    they keep their place in the order of work."""
    rows = [{"id": task.id, "lease": task.lease, "until": to_milliseconds(until)} for task, until in claimed]
    await connection.execute(_put_off, {"rows": _rows(rows)})


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
    return set(await connection.scalars(_save_progress, {"rows": _rows(rows)}))


async def add_checkpoint(connection: AsyncConnection, task_id: int, lease: int, data: JsonText) -> bool:
    """Append a checkpoint while the lease holds. False if it does not."""
    held_now = select(tasks.c.id).where(
        tasks.c.id == task_id, tasks.c.lease == lease, tasks.c.status == literal_column("'running'")
    )
    # Locked first, so that it is stored before somebody else ends the attempt and drops them, or not at all.
    if await connection.scalar(held_now.with_for_update(key_share=True)) is None:
        return False
    following = select(func.coalesce(func.max(checkpoints.c.seq), 0) + 1).where(checkpoints.c.task_id == task_id)
    values = {"task_id": task_id, "seq": following.scalar_subquery(), "data": data}
    await connection.execute(insert(checkpoints).values(values))
    return True


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
