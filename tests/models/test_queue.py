from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy import insert as insert_into

from app.core.lifecycle import Change
from app.core.task import Attempt, ClaimedTask, JsonText, Status, Task, TaskError
from app.models import attempts, chores, queue, tables, tasks
from app.models.database import Database
from app.models.queue import Completion, Front, Head
from tests.conftest import FrozenClock, engines_of
from tests.models.conftest import Claim, Insert


async def read(database: Database, task_id: int) -> Task:
    async with database.read() as connection:
        return (await tasks.get_many(connection, [task_id]))[task_id]


async def complete(database: Database, task: ClaimedTask, result: str = "1") -> set[queue.Lease]:
    now = database.clock()()
    async with database.write() as connection:
        return set(await queue.complete(connection, [Completion(task.id, task.lease, JsonText(result), now)]))


def change(task: ClaimedTask, now: Any, **changes: Any) -> Change:
    values: dict[str, Any] = {"status": Status.FAILED, "attempts": task.attempt, "rank": task.rank, "finished_at": now}
    return Change(id=task.id, lease=task.lease, at=now, **values | changes)


# Claiming.


async def test_a_claim_takes_the_lowest_ranks_over_all_pairs(insert: Insert, claim: Claim) -> None:
    await insert(
        {"queue": "a", "priority": 0},
        {"queue": "b", "priority": 5},
        {"queue": "a", "task_type": "greet", "priority": 9},
        {"queue": "b", "priority": 0},
        {"queue": "a", "priority": 5},
    )
    assert [task.id for task in await claim(room=4)] == [3, 2, 5, 1]


async def test_a_claim_takes_only_the_pairs_it_was_given(insert: Insert, claim: Claim) -> None:
    await insert({"queue": "a"}, {"queue": "b"}, {"queue": "a", "task_type": "greet"})
    assert [task.id for task in await claim(pairs=[("a", "echo"), ("c", "echo")])] == [1]


async def test_a_claimed_task_is_running_under_a_new_lease_and_charged(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    (task_id,) = await insert()
    (claimed,) = await claim(worker="w9", seconds=30)
    row = await read(database, task_id)
    assert (row.status, row.attempts, row.lease, row.worker_id) == (Status.RUNNING, 1, 1, "w9")
    assert row.started_at == clock()
    assert row.lease_expires_at == clock() + timedelta(seconds=30)
    assert (claimed.attempt, claimed.lease, claimed.payload) == (1, 1, '{"number":1}')
    assert await claim() == []


async def test_a_claim_leaves_out_what_has_expired_or_used_up_its_attempts(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({"expires_at": clock() + timedelta(seconds=1)}, {}, {})
    async with database.write() as connection:
        await connection.execute(update(tables.tasks).where(tables.tasks.c.id == 2).values(attempts=3))
    clock.forward(1)
    assert [task.id for task in await claim()] == [3]


async def test_heads_are_the_first_of_each_pair_and_skip_paused_queues(database: Database, insert: Insert) -> None:
    await insert({"queue": "b"}, {"queue": "a"}, {"queue": "a", "priority": 1}, {"queue": "b", "task_type": "a"})
    async with database.write() as connection:
        heads = (await queue.front(connection)).heads
        assert [(head.queue, head.task_type) for head in heads] == [("a", "echo"), ("b", "a"), ("b", "echo")]
        assert heads[0] == Head("a", "echo", (await tasks.get_many(connection, [3]))[3].rank)
        await connection.execute(insert_into(tables.queues).values(name="b", paused=True))
        assert [head.queue for head in (await queue.front(connection)).heads] == ["a"]


async def test_heads_of_an_empty_queue_are_none(database: Database) -> None:
    async with database.write() as connection:
        assert await queue.front(connection) == Front([], None)


async def test_the_front_tells_when_the_first_is_due_whether_something_waits_or_not(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    due = [clock() + timedelta(seconds=seconds) for seconds in (20, 10)]
    await insert(*({"scheduled_at": at} for at in due))
    async with database.write() as connection:
        assert await queue.front(connection) == Front([], due[1])
    await insert({}, {"task_type": "greet"})
    async with database.write() as connection:
        found = await queue.front(connection)
    assert (len(found.heads), found.due_at) == (2, due[1])


# Fences: with another lease, or once it is over, no write changes anything.


@pytest.fixture
async def reclaimed(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> tuple[ClaimedTask, ClaimedTask]:
    """One task claimed by a worker that froze, taken back, and claimed by another: (stale, current)."""
    await insert()
    (stale,) = await claim(worker="w1")
    clock.forward(31)
    async with database.write() as connection:
        (expired,) = await chores.unrenewed(connection, await chores.leases_that_end(connection, clock(), clock()))
        await queue.apply(
            connection, [change(stale, clock(), status=Status.PENDING, finished_at=None, attempts=expired.attempts)]
        )
    (current,) = await claim(worker="w2")
    assert current.lease == stale.lease + 1
    return stale, current


async def test_a_late_finisher_cannot_overwrite_a_reclaimed_task(
    database: Database, reclaimed: tuple[ClaimedTask, ClaimedTask]
) -> None:
    stale, current = reclaimed
    assert await complete(database, stale, '"stale"') == set()
    assert (await read(database, current.id)).status is Status.RUNNING
    assert await complete(database, current, '"new"') == {(current.id, current.lease)}
    assert await complete(database, stale, '"stale"') == set()
    assert (await read(database, current.id)).result == '"new"'


async def test_a_late_failure_cannot_overwrite_a_reclaimed_task(
    database: Database, reclaimed: tuple[ClaimedTask, ClaimedTask], clock: FrozenClock
) -> None:
    stale, current = reclaimed
    async with database.write() as connection:
        assert await queue.held(connection, [(stale.id, stale.lease)]) == []
        assert await queue.apply(connection, [change(stale, clock(), failure_reason="error")]) == {}
        assert [task.id for task in await queue.held(connection, [(current.id, current.lease)])] == [current.id]


async def test_a_late_renewal_progress_or_checkpoint_changes_nothing(
    database: Database, reclaimed: tuple[ClaimedTask, ClaimedTask], clock: FrozenClock
) -> None:
    stale, current = reclaimed
    before = await read(database, current.id)
    async with database.write() as connection:
        until = clock() + timedelta(seconds=99)
        assert await queue.renew(connection, [(stale.id, stale.lease)], until) == []
        assert await queue.save_progress(connection, [(stale.id, stale.lease, JsonText("1"))]) == set()
        assert not await queue.add_checkpoint(connection, stale.id, stale.lease, JsonText("1"))
    assert await read(database, current.id) == before


async def test_a_finished_task_takes_no_second_end(database: Database, insert: Insert, claim: Claim) -> None:
    await insert()
    (task,) = await claim()
    assert await complete(database, task, '"first"') == {(task.id, task.lease)}
    assert await complete(database, task, '"second"') == set()
    row = await read(database, task.id)
    assert (row.result, row.lease_expires_at, row.status) == ('"first"', None, Status.COMPLETED)


async def test_a_batch_settles_what_is_ours_and_leaves_the_rest(
    database: Database, insert: Insert, claim: Claim
) -> None:
    await insert({}, {}, {})
    claimed = await claim()
    now = database.clock()()
    rows = [Completion(task.id, task.lease + (task.id == 2), JsonText(f"{task.id}"), now) for task in claimed]
    async with database.write() as connection:
        assert set(await queue.complete(connection, rows)) == {(1, 1), (3, 1)}
    assert [(await read(database, id_)).result for id_ in (1, 2, 3)] == ["1", None, "3"]


async def test_renewing_brings_back_who_was_asked_to_cancel(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {})
    first, second = await claim()
    until = clock() + timedelta(seconds=60)
    async with database.write() as connection:
        await tasks.request_cancel(connection, second.id, second.lease, clock())
        renewed = await queue.renew(connection, [(first.id, first.lease), (second.id, second.lease)], until)
    assert {one.id: one.cancel_requested for one in renewed} == {first.id: False, second.id: True}
    assert (await read(database, first.id)).lease_expires_at == until


async def test_a_lease_that_is_over_and_that_nobody_took_can_still_be_renewed(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert()
    (task,) = await claim(seconds=30)
    clock.forward(1000)
    async with database.write() as connection:
        seen = await chores.leases_that_end(connection, clock(), clock())
        assert len(await queue.renew(connection, [(task.id, task.lease)], clock() + timedelta(seconds=30))) == 1
        assert await chores.unrenewed(connection, seen) == []


async def test_a_task_that_ends_while_the_clock_is_set_back_does_not_end_before_it_began(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert()
    (task,) = await claim()
    began = clock()
    clock.set(-100)
    await complete(database, task)
    row = await read(database, task.id)
    assert (row.started_at, row.finished_at) == (began, began)


# What a change writes.


async def test_a_change_writes_every_column_it_decides(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert()
    (task,) = await claim()
    later = clock() + timedelta(seconds=9)
    error = TaskError("ValueError", 'quote " and \\ and é', 1, clock(), "Traceback...")
    decided = change(
        *(task, clock()),
        status=Status.RETRYING,
        finished_at=None,
        rank=77,
        scheduled_at=later,
        error=error,
        deaths=2,
        runs_alone=True,
        attempts=1,
    )
    async with database.write() as connection:
        assert set(await queue.apply(connection, [decided])) == {task.id}
    row = await read(database, task.id)
    assert (row.status, row.rank, row.scheduled_at, row.deaths, row.runs_alone) == (Status.RETRYING, 77, later, 2, True)
    assert row.error == queue.error_json(error)
    assert row.lease_expires_at is None
    assert row.lease == task.lease


async def test_a_later_change_without_an_error_keeps_the_last_one(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert()
    (task,) = await claim()
    error = TaskError("ValueError", "first", 1, clock())
    async with database.write() as connection:
        await queue.apply(connection, [change(task, clock(), status=Status.PENDING, finished_at=None, error=error)])
    (again,) = await claim()
    async with database.write() as connection:
        await queue.apply(connection, [change(again, clock(), status=Status.PENDING, finished_at=None)])
    assert (await read(database, task.id)).error == queue.error_json(error)
    (third,) = await claim()
    await complete(database, third)
    assert (await read(database, task.id)).error is None


async def test_attempts_are_kept_in_order(database: Database, insert: Insert, clock: FrozenClock) -> None:
    await insert()
    history = [
        Attempt(1, lease, lease, "error", "w", clock(), clock(), JsonText("{}"), 1.5 if lease == 2 else None)
        for lease in (1, 2, 3)
    ]
    async with database.write() as connection:
        await queue.record_attempts(connection, list(reversed(history)))
    async with database.read() as connection:
        assert await attempts.of_task(connection, 1) == history


async def test_checkpoints_are_kept_in_order_and_dropped_together(
    database: Database, insert: Insert, claim: Claim
) -> None:
    await insert({}, {})
    first, second = await claim()
    async with database.write() as connection:
        for data in ("1", "2", "3"):
            assert await queue.add_checkpoint(connection, first.id, first.lease, JsonText(data))
        assert await queue.add_checkpoint(connection, second.id, second.lease, JsonText("9"))
        found = await queue.checkpoints_of(connection, [first.id, second.id, 99])
        assert found == {first.id: ["1", "2", "3"], second.id: ["9"]}
        await queue.drop_checkpoints(connection, [first.id])
        assert await queue.checkpoints_of(connection, [first.id, second.id]) == {second.id: ["9"]}


async def test_a_batch_of_a_thousand_rows_is_one_statement(database: Database, insert: Insert, claim: Claim) -> None:
    await insert(*({} for _ in range(1000)))
    claimed = await claim(room=1000)
    now = database.clock()()
    seen: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    for engine in engines_of(database):
        event.listen(engine.sync_engine, "before_cursor_execute", executed)
    async with database.write() as connection:
        rows = [Completion(task.id, task.lease, JsonText("{}"), now) for task in claimed]
        assert len(await queue.complete(connection, rows)) == 1000
        assert await connection.scalar(text("SELECT count(*) FROM tasks WHERE status = 'completed'")) == 1000
    assert len([statement for statement in seen if statement.startswith("UPDATE")]) == 1
