"""Statements for the lines that attempts print and log.

Each line belongs to one lease, and only who had that lease writes it: so a late line is true, whatever became of the task.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.attempt_log import KEPT_ATTEMPTS, Chunk
from app.models.dialects import given_rows, insert_or, string, whole
from app.models.tables import task_logs, tasks

Position = tuple[int, int]
"""(lease, number) of a line: where a reader is."""

_given = given_rows("rows")
_COLUMNS = ("task_id", "lease", "number", "count", "attempt", "lines")
# The join leaves out tasks that were deleted meanwhile; the lock keeps the others from being until this is committed.
_append = (
    insert_or(task_logs)
    .from_select(
        _COLUMNS,
        select(*(string(_given, name) if name == "lines" else whole(_given, name) for name in _COLUMNS))
        .join_from(_given, tasks, tasks.c.id == whole(_given, "task_id"))
        .with_for_update(of=tasks, read=True, key_share=True),
    )
    .on_conflict_do_nothing()
)
_of_attempt = (task_logs.c.task_id == bindparam("of_task"), task_logs.c.lease == bindparam("of_lease"))
_drop = delete(task_logs).where(*_of_attempt, task_logs.c.number < bindparam("keep_from"))
_drop_attempts = delete(task_logs).where(_of_attempt[0], task_logs.c.lease <= bindparam("of_lease"))


async def append(connection: AsyncConnection, chunks: Sequence[Chunk]) -> None:
    """Store these chunks; one that is stored already stays as it is, and of a task that is gone nothing is."""
    rows = [
        {name: getattr(chunk, name) for name in _COLUMNS}
        for chunk in sorted(chunks, key=attrgetter("task_id", "lease"))
    ]
    await connection.execute(_append, {"rows": orjson.dumps(rows).decode()})


async def drop(connection: AsyncConnection, chunks: Sequence[Chunk]) -> None:
    """Delete what these chunks say is too old."""
    oldest = {(one.task_id, one.lease): one.keep_from for one in chunks if one.keep_from > 1}
    if oldest:
        of = [{"of_task": id_, "of_lease": lease, "keep_from": number} for (id_, lease), number in oldest.items()]
        await connection.execute(_drop, of)


async def drop_attempts(connection: AsyncConnection, chunks: Sequence[Chunk]) -> None:
    """Delete the lines of the attempts before the last KEPT_ATTEMPTS, where these chunks begin another."""
    begun = {(one.task_id, one.lease - KEPT_ATTEMPTS) for one in chunks if one.number == one.count}
    of = [{"of_task": id_, "of_lease": lease} for id_, lease in sorted(begun) if lease > 0]
    if of:
        await connection.execute(_drop_attempts, of)


async def after(connection: AsyncConnection, task_id: int, position: Position = (0, 0)) -> list[Chunk]:
    """The chunks of the task that end behind `position`, oldest first."""
    lease, number = position
    columns = [task_logs.c[name] for name in _COLUMNS]
    later = (task_logs.c.lease > lease) | (task_logs.c.number > number)
    statement = select(*columns).where(task_logs.c.task_id == task_id, task_logs.c.lease >= lease, later)
    rows = await connection.execute(statement.order_by(task_logs.c.lease, task_logs.c.number))
    return [Chunk(*row) for row in rows]


def _last_of(column: Any, id_: Any) -> Any:
    newest = (task_logs.c.lease.desc(), task_logs.c.number.desc())
    return select(column).where(task_logs.c.task_id == id_).order_by(*newest).limit(1).scalar_subquery()


_positions = select(
    whole(_given, "id"),
    func.coalesce(_last_of(task_logs.c.lease, whole(_given, "id")), 0),
    func.coalesce(_last_of(task_logs.c.number, whole(_given, "id")), 0),
).select_from(_given)


async def positions(connection: AsyncConnection, ids: Collection[int]) -> dict[int, Position]:
    """Where the last line of each of these tasks is; (0, 0) where there is none."""
    rows = await connection.execute(_positions, {"rows": orjson.dumps([{"id": id_} for id_ in ids]).decode()})
    return {id_: (lease, number) for id_, lease, number in rows}
