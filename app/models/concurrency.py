"""Statements for concurrency keys: who has a place of a key, who waits for one, and whose it becomes."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, Update, bindparam, literal_column, select, text, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.concurrency import Contender
from app.core.task import Status
from app.models import dialects, tables
from app.models.dialects import given_rows, plain, whole
from app.models.tables import tasks

KEYS_A_STATEMENT = 32
FIRST_BLOCKED = 20
"""So many of those that wait for a place of one key are looked at; when all of them get one, so many more."""

_CONTENDING: ColumnElement[bool] = literal_column(f"({tables.CONTENDS})")
_FIELDS = (tasks.c.id, tasks.c.concurrency_key, tasks.c.status, tasks.c.rank, tasks.c.concurrency_limit)
_given = given_rows("rows")


async def reserve(connection: AsyncConnection, keys: Collection[str]) -> None:
    """Give away places of these keys alone until the transaction ends. Who waits here holds rows of tasks at most; who is
    past this point passes over rows that others hold."""
    await dialects.reserve(connection, 1, keys)


@cache
def _contenders(keys: int) -> Any:
    return union_all(*(select(arm.subquery()) for number in range(keys) for arm in _arms(number)))


def _arms(number: int) -> tuple[Select[Any], ...]:
    # An arm for each state: with two of them in a list SQLite would seek by the three of the index's own condition.
    of_key = select(*_FIELDS).where(_CONTENDING, tasks.c.concurrency_key == bindparam(f"key_{number}"))
    pending, running, blocked = (
        of_key.where(tasks.c.status == literal_column(f"'{status}'"))
        for status in (Status.PENDING, Status.RUNNING, Status.BLOCKED)
    )
    return pending, running, blocked.order_by(tasks.c.rank, tasks.c.id).limit(FIRST_BLOCKED)


async def contenders(connection: AsyncConnection, keys: Sequence[str]) -> dict[str, list[Contender]]:
    """By key all tasks that have a place, and the first that wait for one."""
    found: dict[str, list[Contender]] = {}
    for start in range(0, len(keys), KEYS_A_STATEMENT):
        chunk = keys[start : start + KEYS_A_STATEMENT]
        values = {f"key_{number}": key for number, key in enumerate(chunk)}
        for id_, key, status, rank, limit in await connection.execute(_contenders(len(chunk)), values):
            found.setdefault(key, []).append(Contender(id_, key, Status(status), rank, limit or 1))
    return found


def _moving(before: Status, after: Status) -> Update:
    still = plain(tasks.c.status) == literal_column(f"'{before}'")
    wanted = select(whole(_given, "id")).select_from(_given)
    free = (
        select(tasks.c.id)
        .where(tasks.c.id.in_(wanted), still)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("free")
        .prefix_with("MATERIALIZED")
    )
    return (
        update(tasks)
        .where(tasks.c.id.in_(select(free.c.id)), still)
        .values(status=literal_column(f"'{after}'"))
        .returning(tasks.c.id, tasks.c.queue)
    )


_admit = _moving(Status.BLOCKED, Status.PENDING)
_displace = _moving(Status.PENDING, Status.BLOCKED)


async def admit(connection: AsyncConnection, ids: Collection[int]) -> dict[int, str]:
    """Make these blocked tasks ready, but for those that somebody else holds. Returns the queue of each by id."""
    return await _moved(connection, _admit, ids)


async def displace(connection: AsyncConnection, ids: Collection[int]) -> set[int]:
    """Block these ready tasks, but for those that somebody else holds: they are being claimed. Returns the ids."""
    return set(await _moved(connection, _displace, ids))


async def _moved(connection: AsyncConnection, statement: Update, ids: Collection[int]) -> dict[int, str]:
    if not ids:
        return {}
    rows = orjson.dumps([{"id": id_} for id_ in sorted(ids)]).decode()
    moved = await connection.execute(statement, {"rows": rows})
    return {row.id: row.queue for row in moved}


# Skips from key to key through the index, as the search for heads does.
_waiting_keys = text("""
WITH RECURSIVE found (key, number) AS (
  SELECT * FROM (
    SELECT concurrency_key AS key, 1 FROM tasks
    WHERE concurrency_key IS NOT NULL AND status IN ('pending', 'blocked', 'running') AND concurrency_key > :after
    ORDER BY concurrency_key LIMIT 1
  ) AS first
  UNION ALL
  SELECT (SELECT concurrency_key FROM tasks
          WHERE concurrency_key IS NOT NULL AND status IN ('pending', 'blocked', 'running')
            AND concurrency_key > found.key
          ORDER BY concurrency_key LIMIT 1), number + 1
  FROM found WHERE found.key IS NOT NULL AND number < :most
)
SELECT key FROM found WHERE key IS NOT NULL
""")


async def keys_after(connection: AsyncConnection, after: str, most: int) -> list[str]:
    """Up to `most` keys of tasks that run or could, in their order, the next ones after `after`."""
    return list(await connection.scalars(_waiting_keys, {"after": after, "most": most}))
