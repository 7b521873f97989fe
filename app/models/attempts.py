"""Statements for the history of attempts."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.task import Attempt
from app.models.tables import task_attempts

_FIELDS = tuple(task_attempts.c[name] for name in Attempt.__dataclass_fields__)


async def of_task(connection: AsyncConnection, task_id: int) -> list[Attempt]:
    """The attempts of a task that did not simply complete, oldest first."""
    statement = select(*_FIELDS).where(task_attempts.c.task_id == task_id).order_by(task_attempts.c.lease)
    return [Attempt(*row) for row in await connection.execute(statement)]
