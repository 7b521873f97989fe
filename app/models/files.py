"""Statements for what is known about files, and which task keeps which.

A file lives while a task keeps it: then its `expires_at` is NULL. Whatever lets go of the last task sets it.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, exists, insert, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.file import Role, StoredFile
from app.models import tables
from app.models.dialects import insert_or
from app.models.tables import files, task_files, tasks

_FIELDS = tuple(files.c[name] for name in StoredFile.__dataclass_fields__)
_EXPIRING: ColumnElement[bool] = literal_column(f"({tables.EXPIRING})")
DOOMED_AT = datetime(1970, 1, 1, tzinfo=UTC)
"""When files are said to have expired whose bytes are being removed: before anyone's now."""


async def add(connection: AsyncConnection, file: StoredFile) -> None:
    """Store what is known about a file."""
    await connection.execute(insert(files).values(asdict(file)))


async def get(
    connection: AsyncConnection, file_id: str, now: datetime, *, tenant: str = "", for_change: bool = False
) -> StoredFile | None:
    """The file with this id, None if there is none that is still kept, or not of that tenant; locked if it is to be
    changed."""
    statement = select(*_FIELDS).where(files.c.id == file_id, _kept(now))
    if tenant:
        statement = statement.where(files.c.tenant == tenant)
    row = (await connection.execute(statement.with_for_update() if for_change else statement)).first()
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


async def kept_ids(connection: AsyncConnection, ids: Collection[str], now: datetime) -> dict[str, str]:
    """Which of these files are there and still kept, and whose; locked, so that they stay until the transaction ends."""
    statement = select(files.c.id, files.c.tenant).where(files.c.id.in_(ids), _kept(now)).order_by(files.c.id)
    found = await connection.execute(statement.with_for_update(key_share=True))
    return {row[0]: row[1] for row in found}


async def keep_inputs(connection: AsyncConnection, pairs: Sequence[tuple[int, str]]) -> None:
    """Have tasks keep files that came with their submission: pairs of task id and file id."""
    await connection.execute(
        insert(task_files),
        [{"task_id": task_id, "file_id": file_id, "role": Role.INPUT, "lease": 0} for task_id, file_id in pairs],
    )
    kept = {file_id for _, file_id in pairs}
    await connection.execute(update(files).where(files.c.id.in_(kept)).values(expires_at=None))


async def add_saved(connection: AsyncConnection, task_id: int, lease: int, file: StoredFile, role: Role) -> bool:
    """Store a file that an attempt saved, while its lease holds. False if it does not. Fine if it is there already: then
    an earlier try was carried out, and only its answer was lost."""
    held = select(tasks.c.tenant).where(
        tasks.c.id == task_id, tasks.c.lease == lease, tasks.c.status == literal_column("'running'")
    )
    tenant = await connection.scalar(held.with_for_update(key_share=True))
    if tenant is None:
        return False
    values = asdict(file) | {"tenant": tenant}
    await connection.execute(insert_or(files).values(values).on_conflict_do_nothing())
    link = {"task_id": task_id, "file_id": file.id, "role": str(role), "lease": lease}
    await connection.execute(insert_or(task_files).values(link).on_conflict_do_nothing())
    return True


async def let_go(connection: AsyncConnection, task_ids: Collection[int], now: datetime) -> None:
    """Have files expire that no other task keeps. For tasks that are about to be deleted."""
    theirs = select(task_files.c.file_id).where(task_files.c.task_id.in_(task_ids))
    # Locked first, and who else keeps them is looked up after that: two who let go of one file at the same time would
    # each see the other's task still keep it.
    locked = select(files.c.id).where(files.c.id.in_(theirs)).order_by(files.c.id).with_for_update(key_share=True)
    ids = list(await connection.scalars(locked))
    if ids:
        others = exists().where(task_files.c.file_id == files.c.id, task_files.c.task_id.not_in(task_ids))
        await connection.execute(update(files).where(files.c.id.in_(ids), ~others).values(expires_at=now))


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


async def any_expired(connection: AsyncConnection, now: datetime) -> bool:
    """Whether the time of any file is over."""
    return await connection.scalar(select(_expired(now).limit(1).exists())) or False


def _expired(now: datetime) -> Select[Any]:
    return select(files.c.id).where(_EXPIRING, files.c.expires_at <= now).order_by(files.c.expires_at, files.c.id)


async def doom(connection: AsyncConnection, now: datetime, limit: int) -> list[str]:
    """Give up to `limit` files up whose time is over: from now on no task can keep them, however late its clock."""
    chosen = (
        _expired(now)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("chosen")
        .prefix_with("MATERIALIZED")
    )
    doomed = update(files).where(files.c.id.in_(select(chosen.c.id))).values(expires_at=DOOMED_AT).returning(files.c.id)
    return list(await connection.scalars(doomed))


async def remove_doomed(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Forget files whose bytes are gone."""
    await connection.execute(delete(files).where(files.c.id.in_(ids), _EXPIRING, files.c.expires_at == DOOMED_AT))
