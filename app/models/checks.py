"""The invariants of the store as questions, each of which finds the rows that break it. Reads only.

What SQL constraints forbid is asked again: a constraint does not bind who writes the file by other means, or drops it, nor
a file that is damaged.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, exc, inspect, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import StoreDamaged
from app.core.file import Role
from app.core.task import TERMINAL, UNFINISHED, Status
from app.models import migrate
from app.models.dialects import json_test
from app.models.tables import metadata

ROWS_AT_ONCE = 100


def _listed(words: Collection[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant. `statement` gives the ids of what breaks it; `final` ones hold only once all work is done."""

    name: str
    promise: str
    statement: str
    noun: str = "task"
    final: bool = False


_OVER = f"status IN ({_listed(TERMINAL)})"
_LEASES = """
SELECT tasks.id FROM tasks LEFT JOIN (
  SELECT task_id, count(*) AS number, min(lease) AS first, max(lease) AS last FROM task_attempts GROUP BY task_id
) AS history ON history.task_id = tasks.id
WHERE COALESCE(number, 0) <> lease - CASE WHEN status IN ('running', 'completed') THEN 1 ELSE 0 END
   OR COALESCE(last, 0) > lease
   OR (status IN ('running', 'completed') AND COALESCE(last, 0) = lease)
   OR COALESCE(first, 1) <> 1
"""

CHECKS = (
    Check(
        "status",
        "a task is in one of the known states",
        f"SELECT id FROM tasks WHERE status NOT IN ({_listed(tuple(Status))})",
    ),
    Check(
        "lease",
        "a task is running if and only if somebody has a lease on it",
        "SELECT id FROM tasks WHERE (status = 'running') <> (lease_expires_at IS NOT NULL)"
        " OR (status = 'running' AND (lease < 1 OR worker_id IS NULL OR started_at IS NULL OR attempts < 1))",
    ),
    Check(
        "end",
        "a task has an end if and only if it is completed, failed or cancelled",
        f"SELECT id FROM tasks WHERE ({_OVER}) <> (finished_at IS NOT NULL)",
    ),
    Check(
        "reason",
        "a task has a reason and a cause of failure if and only if it failed",
        "SELECT id FROM tasks WHERE (status = 'failed') <> (failure_reason IS NOT NULL)"
        " OR (status = 'failed' AND (error IS NULL OR fingerprint IS NULL))",
    ),
    Check(
        "result",
        "a completed task has a result, and no other has",
        "SELECT id FROM tasks WHERE (status = 'completed') <> (result IS NOT NULL)",
    ),
    Check(
        "moment",
        "a task that waits for its time has one",
        "SELECT id FROM tasks WHERE status IN ('scheduled', 'retrying') AND scheduled_at IS NULL",
    ),
    Check(
        "attempts",
        "no task ran more often than it may",
        "SELECT id FROM tasks WHERE attempts NOT BETWEEN 0 AND max_attempts",
    ),
    Check(
        "history",
        "every claim is accounted for once: as an attempt in the history, or as the one that runs or completed",
        _LEASES,
    ),
    Check(
        "times",
        "nothing ends before it began",
        "SELECT id FROM tasks WHERE finished_at < started_at"
        " UNION SELECT task_id FROM task_attempts WHERE finished_at < started_at",
    ),
    Check(
        "json",
        "what is stored as JSON is JSON",
        "SELECT id FROM tasks WHERE NOT json_valid(payload) OR NOT json_valid(COALESCE(result, '0'))"
        " OR NOT json_valid(COALESCE(error, '0')) OR NOT json_valid(COALESCE(progress, '0'))"
        " OR NOT json_valid(COALESCE(metadata, '0')) OR NOT json_valid(COALESCE(retry, '0'))",
    ),
    Check(
        "unique key",
        "no two unfinished tasks of one tenant have one unique key",
        f"SELECT id FROM tasks WHERE status IN ({_listed(UNFINISHED)}) AND (tenant, unique_key) IN ("
        f"SELECT tenant, unique_key FROM tasks WHERE unique_key IS NOT NULL AND status IN ({_listed(UNFINISHED)})"
        " GROUP BY tenant, unique_key HAVING count(*) > 1)",
    ),
    Check(
        "idempotency key",
        "no two tasks of one tenant have one idempotency key",
        "SELECT id FROM tasks WHERE (tenant, idempotency_key) IN (SELECT tenant, idempotency_key FROM tasks"
        " WHERE idempotency_key IS NOT NULL GROUP BY tenant, idempotency_key HAVING count(*) > 1)",
    ),
    Check(
        "places",
        "of the tasks with one concurrency key no more are ready or run than may",
        "SELECT id FROM tasks WHERE status IN ('pending', 'running') AND concurrency_key IN ("
        "SELECT concurrency_key FROM tasks WHERE concurrency_key IS NOT NULL AND status IN ('pending', 'running')"
        " GROUP BY concurrency_key HAVING count(*) > max(concurrency_limit))",
    ),
    Check(
        "checkpoints",
        "a task that has ended keeps no checkpoints",
        f"SELECT DISTINCT task_id FROM checkpoints JOIN tasks ON tasks.id = task_id WHERE {_OVER}",
    ),
    Check(
        "kept files",
        "a file is kept without end only while a task keeps it",
        "SELECT id FROM files WHERE expires_at IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM task_files WHERE file_id = files.id)",
        noun="file",
    ),
    Check(
        "tenants",
        "what a tenant's task keeps and belongs to is the tenant's",
        "SELECT task_id FROM task_files JOIN tasks ON tasks.id = task_id JOIN files ON files.id = file_id"
        " WHERE tasks.tenant <> '' AND files.tenant <> tasks.tenant"
        " UNION SELECT child.id FROM tasks child JOIN tasks parent ON parent.id = child.parent_id"
        " WHERE child.tenant <> '' AND parent.tenant <> child.tenant",
    ),
    Check(
        "temporary files",
        "a task that has ended keeps no temporary files",
        "SELECT file_id FROM task_files JOIN tasks ON tasks.id = task_id JOIN files ON files.id = file_id"
        f" WHERE role = '{Role.TEMPORARY}' AND {_OVER} AND files.expires_at IS NULL",
        noun="file",
    ),
    Check(
        "orphans",
        "history, checkpoints and files belong to tasks that are there",
        "SELECT task_id FROM task_attempts WHERE task_id NOT IN (SELECT id FROM tasks)"
        " UNION SELECT task_id FROM checkpoints WHERE task_id NOT IN (SELECT id FROM tasks)"
        " UNION SELECT task_id FROM task_files WHERE task_id NOT IN (SELECT id FROM tasks)",
    ),
    Check(
        "unfinished",
        "everything has ended",
        f"SELECT id FROM tasks WHERE status NOT IN ({_listed(TERMINAL)})",
        final=True,
    ),
)


async def breaking(connection: AsyncConnection, check: Check) -> list[str]:
    """The ids of the rows that break an invariant, lowest first."""
    statement = check.statement
    if "json_valid(" in statement:
        statement = statement.replace("json_valid(", f"{await json_test(connection)}(")
    return [str(id_) for id_ in sorted(set(await connection.scalars(text(statement))))]


async def unreadable(connection: AsyncConnection) -> list[str]:
    """The rows that hold what is no text, no moment or no word of ours: the library itself looks at none of that."""
    return [f"{table.name} {key}" for table in metadata.sorted_tables for key in await _unreadable(connection, table)]


async def _unreadable(connection: AsyncConnection, table: Table) -> list[str]:
    key = tuple_(*table.primary_key.columns)
    keys = select(*table.primary_key.columns).order_by(*table.primary_key.columns).limit(ROWS_AT_ONCE)
    found: list[str] = []
    last: tuple[Any, ...] | None = None
    while rows := [tuple(row) for row in await connection.execute(keys if last is None else keys.where(key > last))]:
        if not await _can_read(connection, select(table).where(key >= rows[0], key <= rows[-1])):
            found += [
                "/".join(map(str, row))
                for row in rows
                if not await _can_read(connection, select(table).where(key == row))
            ]
        last = rows[-1]
    return found


async def _can_read(connection: AsyncConnection, statement: Select[Any]) -> bool:
    try:
        (await connection.execute(statement)).all()
    except (exc.DatabaseError, StoreDamaged):
        return False
    return True


async def schema_version(connection: AsyncConnection) -> str:
    """The version of the schema, `none` where it is none of ours."""
    if not await connection.run_sync(lambda bound: inspect(bound).has_table("alembic_version")):
        return "none"
    return " and ".join(map(str, await connection.scalars(text("SELECT * FROM alembic_version")))) or "none"


def is_current(version: str) -> bool:
    """Whether the checks fit a schema of this version."""
    return migrate.is_head(version)


async def missing_tasks(connection: AsyncConnection, ids: Collection[int]) -> list[int]:
    """Which of these ids no task has."""
    there = set(await connection.scalars(text("SELECT id FROM tasks")))
    return sorted(set(ids) - there)


async def stored_files(connection: AsyncConnection) -> list[tuple[str, int, str]]:
    """Id, size and SHA-256 of every file that is kept."""
    rows = await connection.execute(text("SELECT id, size, sha256 FROM files"))
    return [(id_, size, sha256) for id_, size, sha256 in rows]
