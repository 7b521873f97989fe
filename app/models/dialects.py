"""Where SQLite and PostgreSQL differ in their SQL; every statement elsewhere is written once, for both."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Text,
    cast,
    func,
    literal,
    literal_column,
    select,
    text,
    type_coerce,
)

# PostgreSQL's INSERT ... ON CONFLICT also renders as SQLite's (the reverse does not), so one statement serves both.
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import bindparam, column
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import TableValuedAlias

__all__ = [
    "byte_length",
    "damage",
    "flag",
    "given_rows",
    "has_many_writers",
    "holds",
    "insert_or",
    "json_test",
    "last_given_id",
    "later_of",
    "next_task_ids",
    "number",
    "plain",
    "refresh_statistics",
    "reserve",
    "set_last_given_id",
    "string",
    "task_id",
    "whole",
]


class _Spelled(FunctionElement[Any]):
    """A function that each dialect has under a name of its own."""

    inherit_cache = True
    spelled: Mapping[str, str]


@compiles(_Spelled)
def _spell(element: _Spelled, compiler: Any, **options: Any) -> str:
    arguments: str = compiler.process(element.clauses, **options)
    return element.spelled[compiler.dialect.name] % arguments


class _JsonElements(_Spelled):
    """The elements of a JSON array, one a row, in a column `value`."""

    inherit_cache = True
    spelled: Mapping[str, str] = {"sqlite": "json_each(%s)", "postgresql": "jsonb_array_elements(CAST(%s AS jsonb))"}


class _Later(_Spelled):
    """The greater of two values."""

    inherit_cache = True
    spelled: Mapping[str, str] = {"sqlite": "max(%s)", "postgresql": "greatest(%s)"}


class _ByteLength(_Spelled):
    """How long a text is. SQLite has octet_length since 3.43 alone."""

    inherit_cache = True
    type = BigInteger()
    spelled: Mapping[str, str] = {"sqlite": "length(CAST(%s AS BLOB))", "postgresql": "octet_length(%s)"}


class _Place(_Spelled):
    """Where the second text begins in the first, from 1; 0 if it does not occur. Case counts (SQLite's LIKE ignores it)."""

    inherit_cache = True
    type = BigInteger()
    spelled: Mapping[str, str] = {"sqlite": "instr(%s)", "postgresql": "strpos(%s)"}


class _TaskId(_Spelled):
    """The given number, or where there is none the next one for a task. SQLite numbers rows without one by itself."""

    inherit_cache = True
    type = BigInteger()
    spelled: Mapping[str, str] = {"sqlite": "%s", "postgresql": "coalesce(%s, nextval('tasks_id_seq'))"}


def given_rows(parameter: str) -> TableValuedAlias:
    """The JSON array bound to `parameter` as a FROM clause: one statement then serves a whole batch."""
    return _JsonElements(bindparam(parameter, type_=Text)).table_valued(
        column("value", Text), name=f"given_{parameter}"
    )


def _field(rows: TableValuedAlias, key: str | int) -> ColumnElement[Any]:
    # By place where there are many fields: with 22 of them, to look each up by name made an insert half as dear again.
    return rows.c.value.op("->>")(literal_column(f"'{key}'" if isinstance(key, str) else str(key)))


def whole(rows: TableValuedAlias, key: str | int) -> ColumnElement[int]:
    """Field `key` of each given object, or element `key` of each given array, as an integer."""
    return cast(_field(rows, key), BigInteger)


def task_id(rows: TableValuedAlias, key: str | int) -> ColumnElement[int]:
    """The id for a new task: field `key` of each given object, or element `key` of each given array, or what the store gives
    out where that is null."""
    return _TaskId(whole(rows, key))


def number(rows: TableValuedAlias, key: str | int) -> ColumnElement[float]:
    """Field `key` of each given object, or element `key` of each given array, as a float."""
    return cast(_field(rows, key), Float)


def string(rows: TableValuedAlias, key: str | int) -> ColumnElement[str]:
    """Field `key` of each given object, or element `key` of each given array, as text."""
    return type_coerce(_field(rows, key), Text)


def flag(rows: TableValuedAlias, name: str) -> ColumnElement[bool]:
    """Field `name` of each given object, 0 or 1, as a boolean."""
    return whole(rows, name) == literal_column("1")


def later_of(first: ColumnElement[Any], second: ColumnElement[Any]) -> ColumnElement[Any]:
    """The greater of two values."""
    return _Later(first, second)


def byte_length(text_column: ColumnElement[Any]) -> ColumnElement[int]:
    """How many bytes of UTF-8 a text has."""
    return _ByteLength(text_column)


def holds(text_column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """True where the text has `part` in it, letter for letter."""
    return _Place(type_coerce(text_column, Text), literal(part, Text)) > literal_column("0")


def plain(text_column: ColumnElement[Any]) -> ColumnElement[str]:
    """The column's value as an expression that no index knows.

    For rows that are meant by their ids: `status = 'pending'` would offer PostgreSQL the partial index of all that is
    pending, and it reads the whole of that rather than look a few ids up when its statistics say that next to nothing is.
    """
    return type_coerce(text_column, Text).concat(literal_column("''"))


_names = given_rows("rows")
_reserve = select(
    func.pg_advisory_xact_lock(func.hashtextextended(string(_names, "name"), bindparam("kind", type_=BigInteger)))
).select_from(_names)


def has_many_writers(connection: AsyncConnection) -> bool:
    """Whether others may write while this transaction does; if not, nothing that was read in it can change before its end."""
    return connection.dialect.name != "sqlite"


async def reserve(connection: AsyncConnection, kind: int, names: Iterable[str]) -> None:
    """Have these names to ourselves until the transaction ends, whether or not there are rows: a row lock would not keep two
    others from both making the first one. The same name of another `kind` is another's."""
    if has_many_writers(connection):
        rows = orjson.dumps([{"name": name} for name in sorted(names)]).decode()
        await connection.execute(_reserve, {"rows": rows, "kind": kind})


async def json_test(connection: AsyncConnection) -> str:
    """The name of a function that says whether a text is JSON. PostgreSQL has none before version 16, so it gets one that
    this session alone knows."""
    if connection.dialect.name == "sqlite":
        return "json_valid"
    await connection.execute(text("""
CREATE OR REPLACE FUNCTION pg_temp.json_valid(given text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM given::json; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END $$"""))
    return "pg_temp.json_valid"


async def damage(connection: AsyncConnection) -> list[str]:
    """What the store itself finds wrong with its files, in its words. Raises DBAPIError for what it cannot read at all."""
    if connection.dialect.name == "sqlite":
        rows = [str(row) for row in await connection.scalars(text("PRAGMA integrity_check(100)"))]
        # Which constraint fails where, the checks of the rows tell better. What is between asterisks is a heading.
        skipped = ("ok", "CHECK constraint failed", "***")
        found = [line for row in rows for line in row.splitlines() if not line.startswith(skipped)]
        links = await connection.execute(text("PRAGMA foreign_key_check"))
        return found + [f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}" for row in links]
    if await connection.scalar(text("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'")):
        await connection.execute(text("""
SELECT bt_index_check(indexrelid, true) FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid AND relam = (SELECT oid FROM pg_am WHERE amname = 'btree')
WHERE relnamespace = current_schema()::regnamespace AND indisvalid"""))
    return []


async def next_task_ids(connection: AsyncConnection, count: int) -> Sequence[int]:
    """`count` ids that no task ever had. Inside a write transaction only: on SQLite nobody else may insert meanwhile.

    Given out beforehand because RETURNING promises no order, and a bulk answer must name its ids in order.
    """
    if connection.dialect.name == "sqlite":
        asked = await connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'")
        last = asked.scalar()
        return range((last or 0) + 1, (last or 0) + 1 + count)
    given = select(func.nextval("tasks_id_seq")).select_from(func.generate_series(1, count).alias("n"))
    return sorted((await connection.scalars(given)).all())


async def last_given_id(connection: AsyncConnection, table: str, key: str) -> int:
    """The highest id that the store has given out for `table`, be its row there still or not; 0 if none."""
    asked = {
        "sqlite": "SELECT max(seq) FROM sqlite_sequence WHERE name = :table",
        "postgresql": "SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, :key) AS regclass))",
    }[connection.dialect.name]
    return await connection.scalar(text(asked), {"table": table, "key": key}) or 0


async def set_last_given_id(connection: AsyncConnection, table: str, key: str, last: int) -> None:
    """Have the store go on after `last`, which is above 0."""
    given = {"table": table, "key": key, "last": last}
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT setval(pg_get_serial_sequence(:table, :key), :last)"), given)
        return
    await connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), given)
    await connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), given)


async def refresh_statistics(connection: AsyncConnection) -> None:
    """Have the store look at what is in the tables now, where it plans by that."""
    if connection.dialect.name != "sqlite":
        await connection.execute(text("ANALYZE"))
