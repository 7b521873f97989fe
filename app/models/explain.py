"""Statements that say what is before a task: each counts up to a bound, in an index."""

from collections.abc import Collection, Sequence

import orjson
from sqlalchemy import ColumnElement, func, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.task import Task
from app.models import tables
from app.models.dialects import given_rows, string
from app.models.tables import tasks

_PENDING: ColumnElement[bool] = literal_column(tables.PENDING)
_LEASED: ColumnElement[bool] = literal_column(tables.LEASED)
_CONTENDING: ColumnElement[bool] = literal_column(f"({tables.CONTENDS})")


def _before(task: Task) -> ColumnElement[bool]:
    # Not a comparison of rows, by which SQLite would seek with its first column alone.
    return (tasks.c.rank <= task.rank) & ((tasks.c.rank < task.rank) | (tasks.c.id < task.id))


async def ahead(connection: AsyncConnection, task: Task, task_types: Sequence[str], most: int) -> int:
    """How many ready tasks of these types in the task's queue come before it, counted to `most`."""
    arms = [
        select(literal_column("1").label("one"))
        .where(_PENDING, tasks.c.queue == task.queue, tasks.c.task_type == task_type, _before(task))
        .limit(most)
        .subquery()
        for task_type in task_types
    ]
    counted = union_all(*(select(arm.c.one) for arm in arms)).subquery()
    return min(most, await connection.scalar(select(func.count()).select_from(counted)) or 0)


_pairs = given_rows("rows")
_first_of_pair = (
    select(tasks.c.id)
    .where(_PENDING, tasks.c.queue == string(_pairs, 0), tasks.c.task_type == string(_pairs, 1))
    .order_by(tasks.c.rank, tasks.c.id)
    .limit(1)
    .scalar_subquery()
)
_firsts = select(tasks.c.queue, tasks.c.rank, tasks.c.id).where(
    tasks.c.id.in_(select(_first_of_pair).select_from(_pairs))
)


async def firsts(
    connection: AsyncConnection, queues: Collection[str], task_types: Collection[str]
) -> dict[str, tuple[int, int]]:
    """Rank and id of the first ready task of these types in each of these queues; queues without any are missing."""
    pairs = [(queue, task_type) for queue in queues for task_type in task_types]
    found: dict[str, tuple[int, int]] = {}
    for queue, rank, id_ in await connection.execute(_firsts, {"rows": orjson.dumps(pairs).decode()}):
        found[queue] = min(found.get(queue, (rank, id_)), (rank, id_))
    return found


async def running(connection: AsyncConnection, queue: str, most: int) -> tuple[int, ...]:
    """The ids of up to `most` tasks of the queue that run."""
    statement = select(tasks.c.id).where(_LEASED, tasks.c.queue == queue).limit(most)
    return tuple(sorted(await connection.scalars(statement)))


async def held(connection: AsyncConnection, worker_ids: Collection[str], most: int) -> tuple[int, ...]:
    """The ids of up to `most` tasks that these workers hold."""
    statement = select(tasks.c.id).where(_LEASED, tasks.c.worker_id.in_(worker_ids)).limit(most)
    return tuple(sorted(await connection.scalars(statement)))


async def blocked_before(connection: AsyncConnection, task: Task, most: int) -> int:
    """How many blocked tasks of the task's concurrency key come before it, counted to `most`."""
    seen = (
        select(literal_column("1"))
        .where(
            _CONTENDING,
            tasks.c.concurrency_key == task.concurrency_key,
            tasks.c.status == literal_column("'blocked'"),
            _before(task),
        )
        .limit(most)
        .subquery()
    )
    return await connection.scalar(select(func.count()).select_from(seen)) or 0
