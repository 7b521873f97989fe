"""Every hot statement reads only the rows it is about: no scan of the table, no sort, whatever the table holds."""

import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from app.core.ahead import brought_back
from app.core.breaker import trip
from app.core.file import Role, StoredFile
from app.core.leases import HeldLease
from app.core.lifecycle import Change
from app.core.limits import QueueRule
from app.core.tally import Tally
from app.core.task import JsonText, Status
from app.models import (
    breakers,
    chores,
    concurrency,
    dead_letters,
    explain,
    files,
    limits,
    queue,
    stats,
    tallies,
    tasks,
    webhooks,
    workers,
)
from app.models.database import Connection, Database
from app.models.dead_letters import DeadFilter
from app.models.postgres import adapted_of
from app.models.queue import Completion
from app.models.sqlite_store import SqliteStore
from app.models.tasks import TaskFilter
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, Insert, new_task


class Plans:
    """Collects the plan of every statement that goes through one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: list[tuple[str, Any]] = []
        self.steps: list[str] = []

    async def __aenter__(self) -> "Plans":
        event.listen(self._connection.sync_connection, "before_cursor_execute", self._executed)
        return self

    async def __aexit__(self, *failure: object) -> None:
        event.remove(self._connection.sync_connection, "before_cursor_execute", self._executed)
        if failure[0] is None:
            for statement, parameters in self._seen:
                if statement.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")):
                    self.steps += await self._explained(statement, parameters)

    def _executed(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        self._seen.append((statement, parameters))

    async def _explained(self, statement: str, parameters: Any) -> list[str]:
        if self._connection.dialect.name == "sqlite":
            rows = await self._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return [row[3] for row in rows]
        rows = await self._connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)
        return [row[0].strip(" ->") for row in rows]

    @property
    def sorts(self) -> list[str]:
        return [step for step in self.steps if "TEMP B-TREE" in step or step == "Sort"]

    @property
    def scans(self) -> list[str]:
        """Steps that read all of a table, or sort what an index should have ordered."""
        if on_postgres(self._connection):
            whole = ("Seq Scan on", "Hash Join", "Hash Semi", "Hash Anti", "Merge Join")
            few = ("Seq Scan on queues", "Seq Scan on webhooks")  # a handful of rows
            return self.sorts + [step for step in self.steps if step.startswith(whole) and not step.startswith(few)]
        whole = ("SCAN tasks", "SCAN following", "SCAN files", "SCAN task_files")
        return self.sorts + [step for step in self.steps if step.startswith(whole) and "USING" not in step]

    @property
    def whole(self) -> list[str]:
        """Steps by which PostgreSQL reads all of an index of tasks, for want of a condition."""
        found = []
        for step, following in zip(self.steps, [*self.steps[1:], ""], strict=True):
            if re.match(r"Index (Only )?Scan .*using \w+ on tasks", step) and not following.startswith("Index Cond"):
                found.append(step)
        return found

    def uses(self, *words: str) -> bool:
        """Whether any step has these words, in the one or the other store's language."""
        return any(word in step for step in self.steps for word in words)

    def through(self, index: str) -> int:
        """How many steps look rows up in an index, by a condition."""
        if not on_postgres(self._connection):
            table = index.removesuffix("_pkey")
            sought = index if table == index else f"SEARCH {table} USING"
            found = [step for step in self.steps if step.startswith("SEARCH") and sought in step]
            return sum(table == index or "PRIMARY KEY" in step for step in found)
        found = 0
        for step, following in zip(self.steps, [*self.steps[1:], ""], strict=True):
            found += f"using {index} on" in step and following.startswith("Index Cond")
            found += step.startswith(f"Bitmap Index Scan on {index}")
        return found


@pytest.fixture
async def connection(database: Database, clock: FrozenClock) -> AsyncIterator[Connection]:
    """In a transaction on thirty waiting tasks. PostgreSQL's planner believes that there are only the many finished ones."""
    async with database.write() as connection:
        if on_postgres(connection):
            await connection.execute(text(FINISHED))
            await connection.execute(text("ANALYZE tasks"))
        await tasks.insert_new(connection, [new_task(queue=f"q{number % 3}") for number in range(30)], clock(), STEP)
        yield connection


ENDED = """
INSERT INTO tasks (task_type, queue, status, failure_reason, priority, rank, payload, result, attempts, max_attempts,
                   timeout_seconds, lease, created_at, started_at, finished_at)
SELECT 'echo', 'q' || i % 3, {status}, {reason}, 0, i, '{{}}', '1', 1, 3, 30, 1, 1, 1, i FROM generate_series(1, {count}) i
"""
FINISHED = ENDED.format(status="'completed'", reason="NULL", count=5000)
FAILED = ENDED.format(status="'failed'", reason="'lost'", count=500)


def on_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


async def test_submitting(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await tasks.insert_new(connection, [new_task()], clock(), STEP)
    assert plans.scans == []


async def test_finding_who_holds_a_key(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await tasks.find_by_keys(connection, ["i"], ["u"])
        await tasks.find_by_keys(connection, [], ["u"])
    assert plans.scans == []
    assert plans.uses("uq_tasks_unique_key")
    assert plans.uses("uq_tasks_idempotency_key")


async def test_what_is_a_tenants_is_found_by_its_index(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await tasks.search(connection, TaskFilter(tenant="north"), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(tenant="north", before_id=20), 50, whole_rows=False)
        await tasks.count_waiting(connection, "north", 1000)
    assert plans.scans == []
    assert plans.uses("ix_tasks_tenant")


async def test_reading_by_id(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await tasks.get_many(connection, [1, 2])
        await tasks.versions(connection, [1, 2])
        await tasks.get_for_change(connection, 1)
    assert plans.scans == []
    assert plans.through("tasks_pkey") == 3


async def test_finding_heads(connection: Connection) -> None:
    async with Plans(connection) as plans:
        assert len((await queue.front(connection)).heads) == 3
    assert plans.scans == []
    assert plans.uses("(queue=? AND task_type>?)", "Index Cond: ((queue = (heads_1.queue)::text) AND (task_type > ")
    assert plans.uses("(queue>?)", "Index Cond: (queue > ")


async def test_finding_heads_costs_the_same_however_many_wait(connection: Connection, clock: FrozenClock) -> None:
    """A plan can look right and still read a whole queue, so this counts what the store really does."""

    async def work() -> int:
        if on_postgres(connection):
            asked = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {queue._front}"
            told = json.loads(await connection.scalar(text(asked)) or "")
            plan = told[0]["Plan"]
            return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        raw = await connection.get_raw_connection()
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        await raw.driver_connection.set_progress_handler(tick, 1)  # type: ignore[union-attr]  # every instruction
        await queue.front(connection)
        await raw.driver_connection.set_progress_handler(None, 1)  # type: ignore[union-attr]
        return ticks

    few = await work()
    await tasks.insert_new(connection, [new_task(queue=f"q{number % 3}") for number in range(2000)], clock(), STEP)
    for number in range(50):
        await breakers.save(connection, trip(f"dependency-{number}", "down", None, clock()))
    # On PostgreSQL pages are counted, and a tree of a hundred times the entries may be a level higher.
    assert await work() <= (1.5 if on_postgres(connection) else 1.1) * few


async def test_breakers(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await breakers.save(connection, trip("api", "down", None, clock()))
        await breakers.running(connection, [(1, 1), (2, 1)])
        await breakers.waiting(connection, ["echo", "greet"])
        await breakers.remove(connection, ["api"])
    assert plans.scans == []
    assert plans.uses("ix_tasks_pending")
    assert plans.through("breakers_pkey")


async def test_deliveries(connection: Connection, clock: FrozenClock) -> None:
    ids, _ = await tasks.insert_new(connection, [new_task() for _ in range(3)], clock(), STEP)
    await webhooks.add_deliveries(connection, [(id_, "wh1", "task.failed", f"msg_{id_}") for id_ in ids])
    if on_postgres(connection):
        # As after a while: of three rows it would read all.
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
    async with Plans(connection) as plans:
        await webhooks.ends(connection, ids)
        await webhooks.receivers(connection, ids)
        await webhooks.delivery(connection, "wh1", ids[0])
        await webhooks.last_attempts(connection, ids)
    assert plans.scans == plans.sorts  # PostgreSQL may put the few attempts in order
    assert plans.whole == []
    async with Plans(connection) as plans:
        await webhooks.deliveries(connection, "wh1", (), 10, None)
    assert plans.uses("ix_webhook_deliveries_webhook")
    assert plans.sorts == []


async def test_claiming_reads_one_range_for_each_pair(connection: Connection, clock: FrozenClock) -> None:
    pairs = [("q0", "echo"), ("q1", "echo"), ("q2", "greet")]
    async with Plans(connection) as plans:
        await queue.claim(connection, pairs, 5, "w", clock(), clock() + timedelta(seconds=30))
    assert plans.through("ix_tasks_pending") == 3
    # The merge sorts what the LIMITed ranges gave, and where others claim too what may be locked; nothing else is sorted.
    assert plans.scans == plans.sorts
    assert len(plans.sorts) <= 1
    assert plans.whole == []


async def test_writing_to_running_tasks(connection: Connection, clock: FrozenClock) -> None:
    until = clock() + timedelta(seconds=30)
    (task,) = await queue.claim(connection, [("q0", "echo")], 1, "w", clock(), until)
    change = Change(task.id, task.lease, Status.PENDING, 0, task.rank, clock())
    async with Plans(connection) as plans:
        await queue.renew(connection, [(task.id, task.lease)], until)
        await queue.held(connection, [(task.id, task.lease)])
        await queue.save_progress(connection, [(task.id, task.lease, JsonText("{}"))])
        await queue.add_checkpoint(connection, task.id, task.lease, JsonText("1"))
        await queue.complete(connection, [Completion(task.id, task.lease, JsonText("1"), clock())])
        await queue.apply(connection, [change])
        await queue.put_off(connection, [(task, clock())])
    assert plans.scans == []
    assert plans.whole == []
    assert plans.through("tasks_pkey") >= 7


async def test_upkeep(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await chores.next_due(connection)
        await chores.promote_due(connection, clock(), 10)
        await chores.next_expiry(connection)
        await chores.overdue(connection, clock(), 10)
        await chores.expire(connection, [1, 2], clock(), JsonText("{}"), "0" * 16)
        await chores.leases_that_end(connection, clock(), clock())
        await chores.unrenewed(connection, [HeldLease(1, 1, clock())])
        ahead = await chores.waits_ahead(connection, clock(), 60, 10)
        await chores.move(connection, [brought_back(wait, clock(), 60) for wait in ahead])
        for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
            await chores.prunable(connection, status, clock(), clock(), 10)
        await chores.prune(connection, [1, 2])
    if on_postgres(connection):
        # Of the few that it believes to have failed and to be old it would sort the ids.
        assert plans.sorts == plans.scans == ["Sort"] * 2
        # The first entry is all that is read of these.
        # What waits is looked through after the clock was set back, and once at the start.
        assert {step.split()[-3] for step in plans.whole} == {"ix_tasks_due", "ix_tasks_expiring", "ix_tasks_pending"}
        assert len(plans.whole) == 4
    else:
        assert plans.scans == []
    for index in ("ix_tasks_due", "ix_tasks_expiring", "ix_tasks_leases", "ix_tasks_finished"):
        assert plans.uses(index), (index, plans.steps)


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
        await files.any_expired(connection, clock())
        await files.doom(connection, clock(), 10)
        await files.remove_doomed(connection, [file.id])
    assert [step for step in plans.scans if "TEMP B-TREE" not in step and "Sort" not in step] == []
    assert plans.uses("ix_files_expiring")


async def test_counting(connection: Connection, clock: FrozenClock) -> None:
    async with Plans(connection) as plans:
        await stats.queue_depths(connection, clock())
        await stats.ready_pairs(connection, clock())
        await stats.finished_counts(connection, clock())
        await stats.completed_lately(connection, clock() - timedelta(minutes=1), 1000)
    assert [step for step in plans.scans if step not in plans.sorts] == []
    assert plans.uses(
        "ix_tasks_finished (status=? AND finished_at>?)", "Index Cond: ((status = 'completed'::text) AND (finish"
    )


async def test_listing(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await tasks.search(connection, TaskFilter(), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(before_id=9, queue="q1"), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(statuses=(Status.FAILED,)), 50, whole_rows=False)
        await tasks.search(connection, TaskFilter(parent_id=1), 50, whole_rows=False)
    assert plans.uses("ix_tasks_unhappy")
    assert plans.uses("ix_tasks_parent")


async def test_dead_letters(connection: Connection, clock: FrozenClock) -> None:
    if on_postgres(connection):  # of a few it might as well sort the ids
        await connection.execute(text(FAILED))
        await connection.execute(text("ANALYZE tasks"))
    async with Plans(connection) as plans:
        await dead_letters.search(connection, DeadFilter(), 50, before_id=9)
        await dead_letters.choose(connection, DeadFilter(queue="q1"), 3, 50)
        await dead_letters.requeue(connection, [1, 2], clock(), STEP)
        await dead_letters.resolve(connection, [1, 2], clock(), "seen to")
    assert plans.scans == []
    assert plans.whole == []
    assert plans.uses("ix_tasks_unhappy")
    assert plans.through("tasks_pkey") == 2


async def test_a_kept_plan_is_made_anew_before_the_table_has_grown_far(
    database: Database, insert: Insert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only PostgreSQL keeps plans; the statement that has them made again is the store's own."""
    if isinstance(database._store, SqliteStore):
        return
    seen: list[str] = []
    async with database.write() as connection:
        adapted = await adapted_of(connection)
        driver: Any = adapted._connection
    driver.add_query_logger(lambda record: seen.append(record.query))
    await insert()
    assert "DISCARD PLANS" not in seen
    adapted.plans_until = 0.0
    await insert()
    assert seen.count("DISCARD PLANS") == 1


async def test_claiming_from_queues_with_limits(connection: Connection, clock: FrozenClock) -> None:
    """The same ranges, and no task of a limited queue beyond its limit is looked at."""
    pairs = [("q0", "echo"), ("q1", "echo"), ("q2", "greet")]
    async with Plans(connection) as plans:
        until = clock() + timedelta(seconds=30)
        claimed = await queue.claim(connection, pairs, 5, "w", clock(), until, {"q0": 2, "q1": 0})
    assert [task.queue for task in claimed] == ["q0", "q0"]
    assert plans.through("ix_tasks_pending") == 3
    assert plans.whole == []


async def test_limits(connection: Connection, clock: FrozenClock) -> None:
    await limits.change(connection, "q0", {"max_running": 5})
    async with Plans(connection) as plans:
        await limits.found(connection, ["q0"])
        await limits.locked(connection, ["q0"])
        await limits.depth(connection, "q0", 100)
        await limits.running(connection, ["q0", "q1"])
        await limits.spend(connection, QueueRule("q0", rate_limit=1, rate_period_seconds=1, tokens=0.5))
    assert [step for step in plans.scans if "queues" not in step and step not in plans.sorts] == []
    assert plans.uses("ix_tasks_pending")
    assert plans.uses("ix_tasks_blocked")
    assert plans.uses("ix_tasks_leases")
    assert set(plans.whole) <= {step for step in plans.steps if "ix_tasks_leases" in step}


async def test_concurrency_keys(connection: Connection, clock: FrozenClock) -> None:
    keyed = [new_task(concurrency_key=f"k{number % 9}", concurrency_limit=2) for number in range(90)]
    await tasks.insert_new(connection, keyed, clock(), STEP)
    if on_postgres(connection):  # of a few that wait it might as well look at all
        await tasks.insert_new(connection, [new_task() for _ in range(4000)], clock(), STEP)
        await connection.execute(text("ANALYZE tasks"))
    async with Plans(connection) as plans:
        found = await concurrency.contenders(connection, ["k1", "k2"])
        await concurrency.admit(connection, [one.id for one in found["k1"][:2]])
        await concurrency.displace(connection, [one.id for one in found["k1"][:1]])
        assert await concurrency.keys_after(connection, "k3", 3) == ["k4", "k5", "k6"]
    assert plans.scans == []
    assert plans.whole == []
    assert plans.through("ix_tasks_contending") >= 5
    assert plans.through("tasks_pkey") >= 2


async def test_finding_who_is_next_costs_the_same_however_many_are_blocked(
    connection: Connection, clock: FrozenClock
) -> None:
    """A plan can look right and still read all of a key, so this counts what SQLite really does."""
    if on_postgres(connection):
        return
    raw = await connection.get_raw_connection()

    async def work() -> int:
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        await raw.driver_connection.set_progress_handler(tick, 1)  # type: ignore[union-attr]  # every instruction
        await concurrency.contenders(connection, ["k"])
        await raw.driver_connection.set_progress_handler(None, 1)  # type: ignore[union-attr]
        return ticks

    async def block(count: int) -> None:
        await tasks.insert_new(connection, [new_task(concurrency_key="k", concurrency_limit=1)] * count, clock(), STEP)

    await block(concurrency.FIRST_BLOCKED)
    few = await work()
    await block(3000)
    assert await work() <= 1.1 * few


async def test_explaining(connection: Connection, clock: FrozenClock) -> None:
    task = await tasks.get_for_change(connection, max((await tasks.get_many(connection, range(9999))).keys()))
    assert task is not None
    async with Plans(connection) as plans:
        await explain.ahead(connection, task, ["echo", "greet"], 10)
        await explain.running(connection, "q0", 10)
        await explain.held(connection, ["w1"], 10)
        await explain.blocked_before(connection, task, 10)
        await explain.firsts(connection, ["q0", "q1"], ["echo", "greet"])
    assert plans.scans == []
    assert plans.through("ix_tasks_pending") >= 3
    assert plans.uses("ix_tasks_contending")


async def test_what_workers_hold(connection: Connection) -> None:
    async with Plans(connection) as plans:
        await workers.held(connection)
    assert [step for step in plans.scans if step not in plans.sorts] == []
    assert plans.uses("ix_tasks_leases")


async def test_tallies(connection: Connection, clock: FrozenClock) -> None:
    span = tallies.Span(60, clock(), "q", "echo")
    await tallies.add(connection, {span: Tally(submitted=1)})
    wanted = tallies.Range(60, clock() - timedelta(hours=1), clock() + timedelta(hours=1))
    async with Plans(connection) as plans:
        await tallies.summed(connection, wanted, 60, ["queue"], 10)
        await tallies.totals(connection)
        await tallies.prune(connection, clock(), 10)
    assert not plans.uses("SCAN tallies", "Seq Scan on tallies")
