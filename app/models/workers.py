"""Statements for who works: one row for each worker process, made at its start, beaten while it lives."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.task import JsonText
from app.models.dialects import insert_or
from app.models.tables import LEASED, tasks, workers

NO_RUNNERS = JsonText("[]")


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker process. `id` is new at each start; `queues` empty means every queue; `running` and `runners` are JSON text.
    `memory_bytes`: what it and its runners have in use, None where that cannot be told."""

    id: str
    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    task_types: tuple[str, ...]
    slots: int
    running: JsonText
    state: str
    started_at: datetime
    beat_at: datetime
    memory_bytes: int | None = None
    runners: JsonText = NO_RUNNERS


_FIELDS = tuple(workers.c[name] for name in WorkerRow.__dataclass_fields__)


async def save(connection: AsyncConnection, worker: WorkerRow) -> None:
    """Insert the worker, or make its row as given."""
    values = asdict(worker)
    statement = insert_or(workers).values(values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def listed(connection: AsyncConnection, now: datetime, silence: timedelta) -> Sequence[WorkerRow]:
    """The workers heard of within `silence`, oldest first. A beat that far ahead is from before the clock was set back."""
    lately = workers.c.beat_at.between(now - silence, now + silence)
    statement = select(*_FIELDS).where(lately).order_by(workers.c.started_at, workers.c.id)
    return [WorkerRow(*row) for row in await connection.execute(statement)]


_leased: ColumnElement[bool] = literal_column(LEASED)
_held = (
    select(tasks.c.worker_id, tasks.c.task_type, func.count())
    .where(_leased)
    .group_by(tasks.c.worker_id, tasks.c.task_type)
)


async def held(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    """How many tasks of each type each worker has a lease on. Reads what runs, whatever waits or has ended."""
    found: dict[str, dict[str, int]] = {}
    for worker_id, task_type, count in await connection.execute(_held):
        found.setdefault(worker_id, {})[task_type] = count
    return found


async def remove(connection: AsyncConnection, worker_id: str) -> None:
    """Forget a worker that has stopped."""
    await connection.execute(delete(workers).where(workers.c.id == worker_id))


async def remove_silent(connection: AsyncConnection, beaten_before: datetime) -> int:
    """Forget workers not heard of since `beaten_before`. Returns how many."""
    return (await connection.execute(delete(workers).where(workers.c.beat_at < beaten_before))).rowcount
