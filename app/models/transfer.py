"""Statements that read and write rows of any table just as they are stored, so that a copy holds the same on every store.

What the values mean is left to models/tables.py: moments are numbers here, names and words are texts.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    MetaData,
    Row,
    String,
    Table,
    TypeDecorator,
    delete,
    exc,
    func,
    insert,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import StoreError
from app.models import migrate
from app.models.dialects import byte_length, last_given_id, refresh_statistics, set_last_given_id
from app.models.store import reason
from app.models.tables import metadata

__all__ = ["Key", "Rows", "Table", "refresh_statistics"]

PAGE_ROWS = 1000
PAGE_BYTES = 8 * 2**20
"""A page ends before its texts are longer, if it has a row: 1,000 of the largest payloads and results are over a gigabyte."""

Key = tuple[Any, ...]
Rows = Sequence[Row[Any]]


def _stored(table: Table) -> Table:
    columns = [Column(column.name, _plain(column.type), primary_key=column.primary_key) for column in table.columns]
    return Table(table.name, MetaData(), *columns)


def _plain(column_type: Any) -> Any:
    return column_type.impl_instance if isinstance(column_type, TypeDecorator) else column_type


TABLES: tuple[Table, ...] = tuple(_stored(table) for table in metadata.sorted_tables)
"""Every table, those that others refer to first."""


def key_of(table: Table, row: Row[Any]) -> Key:
    """The primary key of a row of this table."""
    return tuple(row._mapping[column] for column in table.primary_key)


async def count(connection: AsyncConnection, table: Table) -> int:
    """How many rows there are."""
    return await connection.scalar(select(func.count()).select_from(table)) or 0


async def page(connection: AsyncConnection, table: Table, after: Key | None) -> Rows:
    """The rows that follow the key `after` in this store's order (the first with None), as many as make a page."""
    keys = list(table.primary_key)
    following = literal_column("1") == literal_column("1") if after is None else tuple_(*keys) > after
    sizes = select(*keys, _size(table)).where(following).order_by(*keys).limit(PAGE_ROWS)
    last: Key | None = None
    size = 0
    for row in await connection.execute(sizes):
        size += row[-1]
        if size > PAGE_BYTES and last is not None:
            break
        last = tuple(row[:-1])
    if last is None:
        return ()
    return (await connection.execute(select(table).where(following, tuple_(*keys) <= last).order_by(*keys))).all()


def _size(table: Table) -> ColumnElement[int]:
    texts = [column for column in table.columns if isinstance(column.type, String) and not column.primary_key]
    zero: ColumnElement[int] = literal_column("0")
    return sum((func.coalesce(byte_length(column), zero) for column in texts), start=zero)


async def with_keys(connection: AsyncConnection, table: Table, keys: Collection[Key]) -> Rows:
    """The rows with these keys."""
    return (await connection.execute(select(table).where(_among(table, keys)))).all()


def _among(table: Table, keys: Collection[Key]) -> ColumnElement[bool]:
    columns = list(table.primary_key)
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return tuple_(*columns).in_(list(keys))


async def add(connection: AsyncConnection, table: Table, rows: Rows) -> None:
    """Insert the rows as they are. Raises StoreError where a constraint forbids one."""
    try:
        await connection.execute(insert(table), [dict(row._mapping) for row in rows])
    except (exc.IntegrityError, exc.DataError, exc.ProgrammingError) as error:
        keys = f"{key_of(table, rows[0])} to {key_of(table, rows[-1])}"
        raise StoreError(f"The rows {keys} of the table {table.name} are refused: {reason(error)}") from error


async def remove(connection: AsyncConnection, table: Table, keys: Collection[Key]) -> None:
    """Delete the rows with these keys, and what belongs to them. Rows of the same table that refer to them go, too, and so
    on: else the store would set what they refer to to NULL."""
    left = list(keys)
    while left:
        chosen, left = left[:PAGE_ROWS], left[PAGE_ROWS:]
        left += await _referring(connection, table, chosen)
        await connection.execute(delete(table).where(_among(table, chosen)))


async def _referring(connection: AsyncConnection, table: Table, keys: Collection[Key]) -> list[Key]:
    """The keys of rows that refer to one of these in the same table."""
    referring = [
        reference.parent.name
        for reference in metadata.tables[table.name].foreign_keys
        if reference.column.table.name == table.name
    ]
    found: set[Key] = set()
    for name in referring:
        asked = select(*table.primary_key).where(table.c[name].in_([key[0] for key in keys]))
        found |= {tuple(row) for row in await connection.execute(asked)}
    return list(found - set(keys))


async def copy_last_ids(source: AsyncConnection, target: AsyncConnection) -> None:
    """Have the target give out ids only that the source never gave out."""
    for table in metadata.sorted_tables:
        numbered = table.autoincrement_column
        if numbered is not None:
            highest = await source.scalar(select(func.max(numbered))) or 0
            last = max(highest, await last_given_id(source, table.name, numbered.name))
            if last:
                await set_last_given_id(target, table.name, numbered.name, last)


async def seal(connection: AsyncConnection, source: str) -> None:
    """Have no program start here until `unseal`; say that it is being filled from the database called `source`."""
    await _set_version(connection, migrate.moving_mark(source))


async def unseal(connection: AsyncConnection) -> None:
    """Let programs start here."""
    await _set_version(connection, migrate.HEAD)


async def _set_version(connection: AsyncConnection, version: str) -> None:
    await connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})


def is_sealed(version: str) -> bool:
    """Whether a database of this version is one that is being filled."""
    return migrate.is_moving(version)


def is_sealed_for(version: str, source: str) -> bool:
    """Whether it is being filled from the database called `source`, by a program of this version."""
    return version == migrate.moving_mark(source)


async def has_tasks(connection: AsyncConnection) -> bool:
    """Whether there is a task or a file: what a service would miss."""
    found = await connection.scalar(text("SELECT EXISTS (SELECT 1 FROM tasks) OR EXISTS (SELECT 1 FROM files)"))
    return bool(found)
