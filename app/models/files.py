"""Statements for what is known about files, and which task keeps which.

A file lives while a task keeps it: then its `expires_at` is NULL. Whatever lets go of the last task sets it.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, insert, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.file import Role, StoredFile
from app.models import tables
from app.models.tables import files, task_files, tasks

_FIELDS = tuple(files.c[name] for name in StoredFile.__dataclass_fields__)
_EXPIRING: ColumnElement[bool] = literal_column(f"({tables.EXPIRING})")


async def add(connection: AsyncConnection, file: StoredFile) -> None:
    """Store what is known about a file."""
    await connection.execute(insert(files).values(asdict(file)))


async def get(connection: AsyncConnection, file_id: str, now: datetime) -> StoredFile | None:
    """The file with this id, None if there is none that is still kept."""
    row = (await connection.execute(select(*_FIELDS).where(files.c.id == file_id, _kept(now)))).first()
    return None if row is None else StoredFile(*row)


def _kept(now: datetime) -> ColumnElement[bool]:
    return or_(files.c.expires_at.is_(None), files.c.expires_at > now)


async def of_task(connection: AsyncConnection, task_id: int) -> list[tuple[StoredFile, Role]]:
    """The files a task keeps, oldest first."""
    statement = (
        select(*_FIELDS, task_files.c.role)
        .join_from(task_files, files, files.c.id == task_files.c.file_id)
        .where(task_files.c.task_id == task_id)
        .order_by(files.c.created_at, files.c.id)
    )
    return [(StoredFile(*row[:-1]), row[-1]) for row in await connection.execute(statement)]


async def kept_ids(connection: AsyncConnection, ids: Collection[str], now: datetime) -> set[str]:
    """Which of these files are there and still kept; locked, so that they stay until the transaction ends."""
    statement = select(files.c.id).where(files.c.id.in_(ids), _kept(now)).with_for_update()
    return set(await connection.scalars(statement))


async def keep_inputs(connection: AsyncConnection, pairs: Sequence[tuple[int, str]]) -> None:
    """Have tasks keep files that came with their submission: pairs of task id and file id."""
    await connection.execute(
        insert(task_files),
        [{"task_id": task_id, "file_id": file_id, "role": Role.INPUT, "lease": 0} for task_id, file_id in pairs],
    )
    kept = {file_id for _, file_id in pairs}
    await connection.execute(update(files).where(files.c.id.in_(kept)).values(expires_at=None))


async def add_saved(connection: AsyncConnection, task_id: int, lease: int, file: StoredFile, role: Role) -> bool:
    """Store a file that an attempt saved, while its lease holds. False if it does not."""
    held = select(tasks.c.id).where(
        tasks.c.id == task_id, tasks.c.lease == lease, tasks.c.status == literal_column("'running'")
    )
    if await connection.scalar(held.with_for_update()) is None:
        return False
    await add(connection, file)
    await connection.execute(insert(task_files).values(task_id=task_id, file_id=file.id, role=str(role), lease=lease))
    return True


async def let_go(connection: AsyncConnection, task_ids: Collection[int], now: datetime) -> None:
    """Have files expire that no other task keeps. For tasks that are about to be deleted."""
    others = exists().where(task_files.c.file_id == files.c.id, task_files.c.task_id.not_in(task_ids))
    theirs = select(task_files.c.file_id).where(task_files.c.task_id.in_(task_ids))
    await connection.execute(update(files).where(files.c.id.in_(theirs), ~others).values(expires_at=now))


async def let_go_temporary(connection: AsyncConnection, task_ids: Collection[int], now: datetime) -> None:
    """Have the temporary files of tasks that have ended expire."""
    theirs = select(task_files.c.file_id).where(
        task_files.c.task_id.in_(task_ids), task_files.c.role == literal_column(f"'{Role.TEMPORARY}'")
    )
    await connection.execute(update(files).where(files.c.id.in_(theirs)).values(expires_at=now))


async def expire(connection: AsyncConnection, file_id: str, now: datetime) -> None:
    """Have a file expire now."""
    await connection.execute(update(files).where(files.c.id == file_id).values(expires_at=now))


async def keepers(connection: AsyncConnection, file_id: str) -> list[int]:
    """The ids of the tasks that keep a file."""
    statement = select(task_files.c.task_id).where(task_files.c.file_id == file_id).order_by(task_files.c.task_id)
    return list(await connection.scalars(statement))


async def expired(connection: AsyncConnection, now: datetime, limit: int) -> list[str]:
    """Up to `limit` files whose time is over."""
    statement = (
        select(files.c.id)
        .where(_EXPIRING, files.c.expires_at <= now)
        .order_by(files.c.expires_at, files.c.id)
        .limit(limit)
    )
    return list(await connection.scalars(statement))


async def remove_expired(connection: AsyncConnection, ids: Collection[str], now: datetime) -> None:
    """Forget files whose bytes are gone."""
    await connection.execute(delete(files).where(files.c.id.in_(ids), _EXPIRING, files.c.expires_at <= now))
