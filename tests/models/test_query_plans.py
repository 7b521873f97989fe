"""Every hot statement reads only the rows it is about: no scan of the table, no sort, whatever the table holds."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.core.breaker import trip
from app.core.file import Role, StoredFile
from app.core.lifecycle import Change
from app.core.task import JsonText, Status
from app.models import breakers, chores, files, queue, stats, tasks
from app.models.database import Connection, Database
from app.models.queue import Completion
from app.models.tasks import TaskFilter
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, new_task


class Plans:
    """Collects the plan of every statement that goes through one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: list[str] = []

    async def __aenter__(self) -> "Plans":
        raw = await self._connection.get_raw_connection()
        await raw.driver_connection.set_trace_callback(self._seen.append)  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        raw = await self._connection.get_raw_connection()
        await raw.driver_connection.set_trace_callback(None)  # type: ignore[union-attr]

    async def steps(self) -> list[str]:
        found: list[str] = []
        for statement in list(self._seen):
            if statement.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")):
                rows = await self._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
                found += [row[3] for row in rows]
        return found


@pytest.fixture
async def connection(database: Database, clock: FrozenClock) -> AsyncIterator[Connection]:
    async with database.write() as connection:
        await tasks.insert_new(connection, [new_task(queue=f"q{number % 3}") for number in range(30)], clock(), STEP)
        yield connection


def whole_scans(steps: list[str]) -> list[str]:
    """Steps that read all of `tasks`, or sort what an index should have ordered."""
    return [
        step
        for step in steps
        if (step.startswith(("SCAN tasks", "SCAN following")) and "USING" not in step) or "TEMP B-TREE" in step
    ]


async def test_submitting(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await tasks.insert_new(connection, [new_task()], clock(), STEP)
    assert whole_scans(await plans.steps()) == []


async def test_finding_who_holds_a_key(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await tasks.find_by_keys(connection, ["i"], ["u"])
        await tasks.find_by_keys(connection, [], ["u"])
    steps = await plans.steps()
    assert whole_scans(steps) == []
    assert [step for step in steps if step == "SCAN tasks"] == []
    assert any("uq_tasks_unique_key" in step for step in steps)
    assert any("uq_tasks_idempotency_key" in step for step in steps)


async def test_reading_by_id(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await tasks.get_many(connection, [1, 2])
        await tasks.versions(connection, [1, 2])
        await tasks.get_for_change(connection, 1)
    steps = await plans.steps()
    assert whole_scans(steps) == []
    assert sum("SEARCH tasks USING INTEGER PRIMARY KEY" in step for step in steps) == 3


async def test_finding_heads(connection: Connection) -> None:
    async with Plans(connection) as plans:
        assert len(await queue.waiting_heads(connection)) == 3
    steps = await plans.steps()
    assert whole_scans(steps) == []
    assert any("SEARCH tasks USING COVERING INDEX ix_tasks_pending (queue=? AND task_type>?)" in step for step in steps)
    assert any("SEARCH tasks USING COVERING INDEX ix_tasks_pending (queue>?)" in step for step in steps)


async def test_finding_heads_costs_the_same_however_many_wait(connection: Connection, clock: FrozenClock) -> None:
    """A plan can look right and still read a whole queue, so this counts what the store really does."""

    async def work() -> int:
        raw = await connection.get_raw_connection()
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        await raw.driver_connection.set_progress_handler(tick, 1)  # type: ignore[union-attr]  # every instruction
        await queue.waiting_heads(connection)
        await raw.driver_connection.set_progress_handler(None, 1)  # type: ignore[union-attr]
        return ticks

    few = await work()
    await tasks.insert_new(connection, [new_task(queue=f"q{number % 3}") for number in range(2000)], clock(), STEP)
    for number in range(50):
        await breakers.save(connection, trip(f"dependency-{number}", "down", None, clock()))
    assert await work() <= 1.1 * few


async def test_breakers(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await breakers.save(connection, trip("api", "down", None, clock()))
        await breakers.running(connection, [(1, 1), (2, 1)])
        await breakers.waiting(connection, ["echo", "greet"])
        await breakers.remove(connection, ["api"])
    steps = await plans.steps()
    assert whole_scans(steps) == []
    assert any("SEARCH tasks USING INTEGER PRIMARY KEY" in step for step in steps)
    assert any("tasks USING COVERING INDEX ix_tasks_pending" in step for step in steps)
    assert any("SEARCH breakers USING PRIMARY KEY" in step for step in steps)


async def test_claiming_reads_one_range_for_each_pair(connection: Connection, clock: FrozenClock) -> None:
    pairs = [("q0", "echo"), ("q1", "echo"), ("q2", "greet")]
    async with Plans(connection) as plans:
        await queue.claim(connection, pairs, 5, "w", clock(), clock() + timedelta(seconds=30))
    steps = await plans.steps()
    assert sum("SEARCH tasks USING INDEX ix_tasks_pending (queue=? AND task_type=?)" in step for step in steps) == 3
    # The merge sorts what the LIMITed ranges gave, at most the room for each pair, and nothing else is sorted.
    assert [step for step in steps if "TEMP B-TREE" in step] == ["USE TEMP B-TREE FOR ORDER BY"]
    assert [step for step in steps if step.startswith("SCAN tasks")] == []


async def test_writing_to_running_tasks(connection: Connection, clock: FrozenClock) -> None:
    until = clock() + timedelta(seconds=30)
    (task,) = await queue.claim(connection, [("q0", "echo")], 1, "w", clock(), until)
    change = Change(task.id, task.lease, Status.PENDING, 0, task.rank, clock())
    async with Plans(connection) as plans:
        await queue.renew(connection, [(task.id, task.lease)], until)
        await queue.held(connection, [(task.id, task.lease)])
        await queue.save_progress(connection, [(task.id, task.lease, JsonText("{}"))])
        await queue.add_checkpoint(connection, task.id, task.lease, JsonText("1"))
        await queue.checkpoints_of(connection, [task.id])
        await queue.complete(connection, [Completion(task.id, task.lease, JsonText("1"), clock(), clock())])
        await queue.apply(connection, [change])
    steps = await plans.steps()
    assert whole_scans(steps) == []
    assert sum("SEARCH tasks USING INTEGER PRIMARY KEY" in step for step in steps) >= 6


async def test_upkeep(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await chores.next_due(connection)
        await chores.promote_due(connection, clock(), 10)
        await chores.next_expiry(connection)
        await chores.overdue(connection, clock(), 10)
        await chores.expire(connection, [1, 2], clock(), JsonText("{}"), "0" * 16)
        await chores.expired_leases(connection, clock(), 10)
        for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
            await chores.prunable(connection, status, clock(), clock(), 10)
        await chores.prune(connection, [1, 2])
    steps = await plans.steps()
    assert whole_scans(steps) == []
    for index in ("ix_tasks_due", "ix_tasks_expiring", "ix_tasks_leases", "ix_tasks_finished"):
        assert any(index in step for step in steps), (index, steps)


async def test_files(connection: Connection, clock: FrozenClock) -> None:
    file = StoredFile("0" * 32, "a", 1, "text/plain", "0" * 64, clock(), clock())
    await files.add(connection, file)
    async with Plans(connection) as plans:
        await files.get(connection, file.id, clock())
        await files.kept_ids(connection, [file.id], clock())
        await files.keep_inputs(connection, [(1, file.id)])
        await files.add_saved(connection, 1, 1, file, Role.OUTPUT)
        await files.of_task(connection, 1)
        await files.keepers(connection, file.id)
        await files.let_go(connection, [1, 2], clock())
        await files.let_go_temporary(connection, [1, 2], clock())
        await files.expired(connection, clock(), 10)
        await files.remove_expired(connection, [file.id], clock())
    steps = await plans.steps()
    assert [step for step in steps if step.startswith("SCAN")] == []
    assert any("ix_files_expiring" in step for step in steps), steps


async def test_counting(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await stats.queue_depths(connection, clock())
        await stats.finished_counts(connection, clock())
    steps = await plans.steps()
    assert [step for step in steps if step.startswith("SCAN tasks") and "INDEX" not in step] == []
    assert any("ix_tasks_finished (status=? AND finished_at>?)" in step for step in steps)


async def test_listing(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await tasks.search(connection, TaskFilter(), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(before_id=9, queue="q1"), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(statuses=(Status.FAILED,)), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(parent_id=1), 50, whole_rows=False)
    steps = await plans.steps()
    assert any("ix_tasks_unhappy" in step for step in steps)
    assert any("ix_tasks_parent" in step for step in steps)
