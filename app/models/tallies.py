"""Statements for tallies: added up where they are stored, read by ranges of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, cast, delete, func, literal_column, select, true
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import BigInteger

from app.core.clock import from_milliseconds, to_milliseconds
from app.core.tally import ALWAYS, BUCKETS, COUNTS, MINUTE, Durations, Pair, Tally
from app.models.dialects import given_rows, insert_or, number, string, whole
from app.models.tables import tallies

_KEY = ("span_seconds", "begins_at", "queue", "task_type")
_BUCKETS = tuple(f"{what}_{number}" for what in ("wait", "run") for number in range(BUCKETS))
_SECONDS = ("wait_seconds", "run_seconds")
_COUNTED = (*COUNTS, *_SECONDS, *_BUCKETS)
_PLACES = {name: place for place, name in enumerate(_COUNTED)}


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, and what it is about."""

    seconds: int
    begins_at: datetime
    queue: str
    task_type: str


_given = given_rows("rows")


def _read(place: int, name: str) -> ColumnElement[Any]:
    if name in ("queue", "task_type"):
        return string(_given, place)
    return (number if name in _SECONDS else whole)(_given, place)


_insert = insert_or(tallies).from_select(
    [*_KEY, *_COUNTED],
    select(*(_read(place, name) for place, name in enumerate((*_KEY, *_COUNTED)))).select_from(_given).where(true()),
)


def _sum(name: str) -> ColumnElement[Any]:
    before, more = func.coalesce(tallies.c[name], 0), func.coalesce(_insert.excluded[name], 0)
    return func.nullif(before + more, 0)


_add = _insert.on_conflict_do_update(index_elements=list(_KEY), set_={name: _sum(name) for name in _COUNTED})


async def add(connection: AsyncConnection, spans: Mapping[Span, Tally]) -> None:
    """Add these to what is stored, in one statement."""
    rows = [
        (
            *(span.seconds, to_milliseconds(span.begins_at), span.queue, span.task_type),
            *(getattr(tally, name) or None for name in COUNTS),
            *(tally.wait.total_seconds or None, tally.run.total_seconds or None),
            *(count or None for count in (*tally.wait.buckets, *tally.run.buckets)),
        )
        # In one order, so that two who add to the same ones wait for each other and never in a circle.
        for span, tally in sorted(spans.items(), key=lambda item: _order(item[0]))
    ]
    await connection.execute(_add, {"rows": orjson.dumps(rows).decode()})


def _order(span: Span) -> tuple[int, datetime, str, str]:
    return span.seconds, span.begins_at, span.queue, span.task_type


async def pairs(connection: AsyncConnection, most: int) -> set[Pair]:
    """Every queue and task type that was ever counted, up to `most`."""
    statement = select(tallies.c.queue, tallies.c.task_type).where(tallies.c.span_seconds == ALWAYS).limit(most)
    return {(queue, task_type) for queue, task_type in await connection.execute(statement)}


def _tally(values: Sequence[Any]) -> Tally:
    wait, run = (
        Durations(
            [int(values[_PLACES[f"{what}_{bucket}"]] or 0) for bucket in range(BUCKETS)],
            float(values[_PLACES[f"{what}_seconds"]] or 0.0),
        )
        for what in ("wait", "run")
    )
    return Tally(**{name: int(values[_PLACES[name]] or 0) for name in COUNTS}, wait=wait, run=run)


async def totals(connection: AsyncConnection) -> dict[Pair, Tally]:
    """Everything that was ever counted, by queue and task type."""
    statement = select(tallies.c.queue, tallies.c.task_type, *(tallies.c[name] for name in _COUNTED))
    rows = await connection.execute(statement.where(tallies.c.span_seconds == ALWAYS))
    return {(row[0], row[1]): _tally(row[2:]) for row in rows}


@dataclass(frozen=True, slots=True)
class Range:
    """Which tallies are meant: those of spans of so many seconds that begin within [begins_at, ends_at); None is every queue,
    every task type."""

    span_seconds: int
    begins_at: datetime
    ends_at: datetime
    queue: str | None = None
    task_type: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What happened within one step of a range; None where it is not told apart."""

    begins_at: datetime
    queue: str | None
    task_type: str | None
    tally: Tally


async def summed(
    connection: AsyncConnection, wanted: Range, step_seconds: int, by: Sequence[str], most: int
) -> list[Step]:
    """The range in steps in which something happened, oldest first, told apart `by` queue, task type or both; up to
    `most`."""
    milliseconds: ColumnElement[int] = literal_column(str(int(step_seconds) * 1000), BigInteger)
    begins_at = cast(tallies.c.begins_at, BigInteger)
    first = (begins_at - begins_at % milliseconds).label("first")
    apart = [tallies.c[name] if name in by else literal_column("NULL") for name in ("queue", "task_type")]
    named = [tallies.c[name] for name in by]
    statement = (
        select(first, *apart, *(func.sum(tallies.c[name]) for name in _COUNTED))
        .where(*_within(wanted))
        .group_by(literal_column("first"), *named)
        .order_by(literal_column("first"), *named)
        .limit(most)
    )
    rows = await connection.execute(statement)
    return [Step(from_milliseconds(int(row[0])), row[1], row[2], _tally(row[3:])) for row in rows]


def _within(wanted: Range) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        tallies.c.span_seconds == wanted.span_seconds,
        tallies.c.begins_at >= wanted.begins_at,
        tallies.c.begins_at < wanted.ends_at,
    ]
    conditions += [
        tallies.c[name] == value
        for name, value in (("queue", wanted.queue), ("task_type", wanted.task_type))
        if value is not None
    ]
    return conditions


async def prune(connection: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete up to about `limit` spans that began before `before`, oldest first. Returns how many."""
    count = 0
    for span_seconds in (MINUTE, 3600):
        old = (
            select(tallies.c.begins_at)
            .where(tallies.c.span_seconds == span_seconds, tallies.c.begins_at < before)
            .order_by(tallies.c.begins_at)
            .limit(limit)
        )
        last = await connection.scalar(select(func.max(old.subquery().c.begins_at)))
        if last is not None:
            gone = delete(tallies).where(tallies.c.span_seconds == span_seconds, tallies.c.begins_at <= last)
            count += (await connection.execute(gone)).rowcount
    return count
