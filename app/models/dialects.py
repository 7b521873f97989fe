"""Where SQLite and PostgreSQL differ in their SQL; every statement elsewhere is written once, for both."""

from collections.abc import Mapping, Sequence
from typing import Any

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

__all__ = ["flag", "given_rows", "holds", "insert_or", "later_of", "next_task_ids", "number", "string", "whole"]


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


class _Place(_Spelled):
    """Where the second text begins in the first, from 1; 0 if it does not occur. Case counts (SQLite's LIKE ignores it)."""

    inherit_cache = True
    type = BigInteger()
    spelled: Mapping[str, str] = {"sqlite": "instr(%s)", "postgresql": "strpos(%s)"}


def given_rows(parameter: str) -> TableValuedAlias:
    """The JSON array bound to `parameter` as a FROM clause: one statement then serves a whole batch."""
    return _JsonElements(bindparam(parameter, type_=Text)).table_valued(
        column("value", Text), name=f"given_{parameter}"
    )


def _field(rows: TableValuedAlias, name: str) -> ColumnElement[Any]:
    return rows.c.value.op("->>")(literal_column(f"'{name}'"))


def whole(rows: TableValuedAlias, name: str) -> ColumnElement[int]:
    """Field `name` of each given object as an integer."""
    return cast(_field(rows, name), BigInteger)


def number(rows: TableValuedAlias, name: str) -> ColumnElement[float]:
    """Field `name` of each given object as a float."""
    return cast(_field(rows, name), Float)


def string(rows: TableValuedAlias, name: str) -> ColumnElement[str]:
    """Field `name` of each given object as text."""
    return type_coerce(_field(rows, name), Text)


def flag(rows: TableValuedAlias, name: str) -> ColumnElement[bool]:
    """Field `name` of each given object, 0 or 1, as a boolean."""
    return whole(rows, name) == literal_column("1")


def later_of(first: ColumnElement[Any], second: ColumnElement[Any]) -> ColumnElement[Any]:
    """The greater of two values."""
    return _Later(first, second)


def holds(text_column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """True where the text has `part` in it, letter for letter."""
    return _Place(type_coerce(text_column, Text), literal(part, Text)) > literal_column("0")


async def next_task_ids(connection: AsyncConnection, count: int) -> Sequence[int]:
    """`count` ids that no task ever had. Inside a write transaction only: on SQLite nobody else may insert meanwhile.

    Given out beforehand because RETURNING promises no order, and a bulk answer must name its ids in order.
    """
    if connection.dialect.name == "sqlite":
        last = await connection.scalar(text("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'"))
        return range((last or 0) + 1, (last or 0) + 1 + count)
    given = select(func.nextval("tasks_id_seq")).select_from(func.generate_series(1, count).alias("n"))
    return sorted((await connection.scalars(given)).all())
