"""Statements for queues as operators steer them: paused, and how much may run, start and wait."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.limits import QueueRule
from app.models import tables
from app.models.dialects import insert_or
from app.models.tables import queues, tasks
from app.models.types import Moment

_FIELDS = tuple(queues.c[name] for name in QueueRule.__dataclass_fields__)
_LEASED: ColumnElement[bool] = literal_column(tables.LEASED)
_PENDING: ColumnElement[bool] = literal_column(tables.PENDING)
_BLOCKED: ColumnElement[bool] = literal_column(tables.BLOCKED)


_all = select(*_FIELDS).order_by(queues.c.name)
_named = queues.c.name.in_(bindparam("names", expanding=True))
_found = _all.where(_named)
_locked = _found.with_for_update(key_share=True)


async def found(connection: AsyncConnection, names: Collection[str] | None = None) -> dict[str, QueueRule]:
    """The rows of these queues by name, None of all; a queue that was never steered has none."""
    rows = await connection.execute(_all) if names is None else await connection.execute(_found, {"names": list(names)})
    return {row[0]: QueueRule(*row) for row in rows}


async def locked(connection: AsyncConnection, names: Collection[str]) -> dict[str, QueueRule]:
    """The rows of these queues as they are now, and as nobody else changes them until the transaction ends."""
    return {row[0]: QueueRule(*row) for row in await connection.execute(_locked, {"names": list(names)})}


async def change(connection: AsyncConnection, name: str, values: Mapping[str, Any]) -> QueueRule:
    """Make the row of this queue if there is none, and set what is given. Returns the row, locked."""
    statement = insert_or(queues).values({"name": name, **values})
    if values:
        statement = statement.on_conflict_do_update(index_elements=["name"], set_=dict(values))
    else:
        statement = statement.on_conflict_do_nothing()
    await connection.execute(statement)
    return (await locked(connection, [name]))[name]


_spend = (
    update(queues)
    .where(queues.c.name == bindparam("of"))
    .values(tokens=bindparam("left"), refilled_at=bindparam("at", type_=Moment))
)


async def spend(connection: AsyncConnection, rule: QueueRule) -> None:
    """Store how many starts are left."""
    await connection.execute(_spend, {"of": rule.name, "left": rule.tokens, "at": rule.refilled_at})


_running = (
    select(tasks.c.queue, func.count())
    .where(_LEASED, tasks.c.queue.in_(bindparam("names", expanding=True)))
    .group_by(tasks.c.queue)
)


async def running(connection: AsyncConnection, names: Collection[str]) -> dict[str, int]:
    """How many tasks of these queues run. Reads what runs, of every queue; never what waits or has ended."""
    counts = {row[0]: row[1] for row in await connection.execute(_running, {"names": list(names)})}
    return {name: counts.get(name, 0) for name in names}


async def depth(connection: AsyncConnection, name: str, most: int) -> int:
    """How many tasks of the queue are ready or wait for a place of their key, counted to `most`."""
    count = 0
    for waits in (_PENDING, _BLOCKED):
        seen = select(literal_column("1")).where(waits, tasks.c.queue == name).limit(most - count).subquery()
        count += await connection.scalar(select(func.count()).select_from(seen)) or 0
        if count >= most:
            break
    return count
