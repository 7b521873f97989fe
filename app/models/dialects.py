"""Where SQLite and PostgreSQL differ in their SQL; every statement elsewhere is written once, for both."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
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


class _JsonElements(FunctionElement[Any]):
    """The elements of a JSON array, one a row, in a column `value`."""

    name = "json_elements"
    inherit_cache = True


@compiles(_JsonElements, "sqlite")
def _sqlite_elements(element: _JsonElements, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_JsonElements, "postgresql")
def _postgresql_elements(element: _JsonElements, compiler: Any, **options: Any) -> str:
    return f"jsonb_array_elements(CAST({compiler.process(element.clauses, **options)} AS jsonb))"


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
    return cast(cast(_field(rows, name), BigInteger), Boolean)


def later_of(first: ColumnElement[Any], second: ColumnElement[Any]) -> ColumnElement[Any]:
    """The greater of two values (MAX with two arguments on SQLite, GREATEST on PostgreSQL)."""
    return _Later(first, second)


class _Later(FunctionElement[Any]):
    name = "later"
    inherit_cache = True


@compiles(_Later, "sqlite")
def _sqlite_later(element: _Later, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"


@compiles(_Later, "postgresql")
def _postgresql_later(element: _Later, compiler: Any, **options: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **options)})"


class _Place(FunctionElement[int]):
    """Where the second text begins in the first, from 1; 0 if it does not occur. Case counts (SQLite's LIKE ignores it)."""

    name = "place"
    type = BigInteger()
    inherit_cache = True


@compiles(_Place, "sqlite")
def _sqlite_place(element: _Place, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


@compiles(_Place, "postgresql")
def _postgresql_place(element: _Place, compiler: Any, **options: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **options)})"


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
