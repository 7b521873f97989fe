"""Statements for circuit breakers. There is a row only while there is something to remember."""

from collections.abc import Collection, Iterable
from dataclasses import asdict

import orjson
from sqlalchemy import ColumnElement, delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.breaker import Circuit, Lease
from app.models import dialects, tables
from app.models.dialects import given_rows, insert_or, whole
from app.models.tables import breakers, tasks

_FIELDS = tuple(breakers.c[name] for name in Circuit.__dataclass_fields__)
_all = select(*_FIELDS).order_by(breakers.c.name)
_given = given_rows("rows")


async def reserve(connection: AsyncConnection, names: Collection[str]) -> None:
    """Have these to ourselves until the transaction ends. Whoever waits here holds tasks and places of concurrency keys at
    most, which nobody waits for who is past this point."""
    await dialects.reserve(connection, 0, names)


async def found(connection: AsyncConnection) -> dict[str, Circuit]:
    """Every row there is, by name."""
    rows = await connection.execute(_all)
    circuits = (Circuit(**{**row, "let_through": _leases(row["let_through"])}) for row in rows.mappings())
    return {circuit.name: circuit for circuit in circuits}


def _leases(text: str) -> tuple[Lease, ...]:
    return tuple((id_, lease) for id_, lease in orjson.loads(text))


async def save(connection: AsyncConnection, circuit: Circuit) -> None:
    """Make or overwrite the row of this breaker."""
    values = asdict(circuit) | {"let_through": orjson.dumps(circuit.let_through).decode()}
    statement = insert_or(breakers).values(values)
    changed = {name: statement.excluded[name] for name in values if name != "name"}
    await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


async def remove(connection: AsyncConnection, names: Collection[str]) -> None:
    """Forget these: they are closed."""
    await connection.execute(delete(breakers).where(breakers.c.name.in_(names)))


_running = select(tasks.c.id, tasks.c.lease).join_from(
    _given,
    tasks,
    (tasks.c.id == whole(_given, "id"))
    & (tasks.c.lease == whole(_given, "lease"))
    & (tasks.c.status == literal_column("'running'")),
)


async def running(connection: AsyncConnection, leases: Iterable[Lease]) -> set[Lease]:
    """Which of these attempts have not ended."""
    rows = orjson.dumps([{"id": id_, "lease": lease} for id_, lease in leases]).decode()
    return {(id_, lease) for id_, lease in await connection.execute(_running, {"rows": rows})}


async def waiting(connection: AsyncConnection, task_types: Collection[str]) -> int:
    """How many tasks of these types are ready."""
    pending: ColumnElement[bool] = literal_column(tables.PENDING)
    statement = select(func.count()).select_from(tasks).where(pending, tasks.c.task_type.in_(task_types))
    return await connection.scalar(statement) or 0
