from datetime import timedelta
from typing import Any

from app.core.ahead import brought_back
from app.core.clock import to_milliseconds
from app.core.lifecycle import Change
from app.core.task import Attempt, JsonText, Status
from app.models import chores, queue, tasks
from app.models.database import Connection, Database
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, Claim, Insert
from tests.models.test_queue import complete, read


async def test_due_tasks_become_ready_in_batches_with_the_rank_of_their_moment(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    due = clock() + timedelta(seconds=10)
    await insert(*({"scheduled_at": due + timedelta(seconds=number), "queue": "q"} for number in range(3)))
    async with database.write() as connection:
        assert await chores.next_due(connection) == due
        assert await chores.promote_due(connection, clock(), 10) == []
        clock.now = due + timedelta(seconds=1)
        assert await chores.promote_due(connection, clock(), 1) == [("q", None)]
        # One is room for one that is still due, whoever was due before.
        assert await chores.promote_due(connection, clock(), 1) == [("q", None)]
        assert await chores.promote_due(connection, clock(), 10) == []
        assert await chores.next_due(connection) == due + timedelta(seconds=2)
    assert (await read(database, 1)).status is Status.PENDING
    assert (await read(database, 1)).rank < (await read(database, 2)).rank


async def test_what_never_started_expires_and_what_runs_does_not(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    over = clock() + timedelta(seconds=5)
    await insert(
        {"expires_at": over}, {"expires_at": over, "scheduled_at": over - timedelta(seconds=1)}, {"expires_at": over}
    )
    await claim(room=1)
    async with database.write() as connection:
        assert await chores.next_expiry(connection) == over
        assert await chores.overdue(connection, over - timedelta(milliseconds=1), 10) == []
        late = await chores.overdue(connection, over, 10)
        assert sorted((one.id, one.queue, one.task_type) for one in late) == [
            (2, "default", "echo"),
            (3, "default", "echo"),
        ]
        expired = await chores.expire(connection, [1, 2, 3], over, JsonText('{"type":"Expired"}'), "0" * 16)
        assert sorted(expired) == [2, 3]
    assert (await read(database, 1)).status is Status.RUNNING
    row = await read(database, 2)
    assert (row.status, row.failure_reason, row.error) == (Status.FAILED, "expired", '{"type":"Expired"}')


async def test_what_has_run_or_ended_does_not_expire(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    over = clock() + timedelta(seconds=5)
    await insert(*[{"expires_at": over}] * 3)
    (task,) = await claim(room=1)
    async with database.write() as connection:
        handed_back = Change(task.id, task.lease, Status.PENDING, 0, task.rank, clock())
        assert set(await queue.apply(connection, [handed_back])) == {task.id}
        assert await tasks.cancel_waiting(connection, 2, clock())
        assert await chores.expire(connection, [1, 2, 3], over, JsonText('{"type":"Expired"}'), "0" * 16) == [3]
    assert (await read(database, 1)).status is Status.PENDING
    assert (await read(database, 2)).status is Status.CANCELLED


async def pruned(connection: Connection, *arguments: Any) -> int:
    ids = await chores.prunable(connection, *arguments)
    await chores.prune(connection, ids)
    return len(ids)


async def test_old_tasks_are_pruned_in_batches_and_keys_live_a_day(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {}, {"idempotency_key": "i"}, {})
    for task in await claim(room=3):
        await complete(database, task)
    clock.forward(3600)
    long_ago = clock() - timedelta(days=1)
    async with database.write() as connection:
        assert await pruned(connection, Status.COMPLETED, long_ago, long_ago, 10) == 0
        assert await pruned(connection, Status.FAILED, clock(), clock(), 10) == 0
        assert await pruned(connection, Status.COMPLETED, clock(), long_ago, 1) == 1
        assert await pruned(connection, Status.COMPLETED, clock(), long_ago, 10) == 1
        assert set(await tasks.get_many(connection, [1, 2, 3, 4])) == {3, 4}
        await chores.prune(connection, [4])  # it has not ended
        assert set(await tasks.get_many(connection, [4])) == {4}
        assert await pruned(connection, Status.COMPLETED, clock(), clock(), 10) == 1


async def test_a_lease_is_taken_back_only_as_it_was_seen(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    """Whoever renewed, ended or claimed again in between keeps what he has: the look and the write are two transactions."""
    await insert({}, {}, {}, {})
    silent, renewed, released, claimed_again = claimed = await claim(room=4)
    async with database.write() as connection:
        seen = await chores.leases_that_end(connection, clock(), clock())  # after now, all of them
        assert {(one.id, one.lease) for one in seen} == {(task.id, task.lease) for task in claimed}
        for task in (released, claimed_again):
            change = Change(task.id, task.lease, Status.PENDING, 0, task.rank - 10 * task.id, clock())
            assert set(await queue.apply(connection, [change])) == {task.id}
    assert [(task.id, task.lease) for task in await claim(room=1)] == [(claimed_again.id, 2)]  # until the same moment
    clock.forward(10)
    async with database.write() as connection:
        await queue.renew(connection, [(renewed.id, renewed.lease)], clock() + timedelta(seconds=30))
        assert [task.id for task in await chores.unrenewed(connection, seen)] == [silent.id]


async def test_a_place_is_brought_back_only_as_it_was_seen(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {}, {"queue": "other"})
    clock.set(-3600)
    async with database.write() as connection:
        moved = [brought_back(wait, clock(), STEP) for wait in await chores.waits_ahead(connection, clock(), STEP, 10)]
        assert [one.id for one in moved] == [1, 2, 3]
        await tasks.edit_waiting(connection, 2, {"priority": 1, "rank": moved[1].from_rank - 60_000})
    await claim(pairs=[("other", "echo")])
    async with database.write() as connection:
        assert await chores.move(connection, moved) == 1
    assert (await read(database, 1)).rank == to_milliseconds(clock())


async def test_a_wait_is_brought_back_once_and_only_while_it_lies_ahead(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {})
    due = clock() + timedelta(seconds=60)
    for task in await claim(room=2):
        change = Change(task.id, task.lease, Status.RETRYING, 1, to_milliseconds(due), clock(), scheduled_at=due)
        ended = Attempt(task.id, task.lease, 1, "error", "w1", clock(), clock(), None, 60.0)
        async with database.write() as connection:
            assert set(await queue.apply(connection, [change])) == {task.id}
            await queue.record_attempts(connection, [ended])
    clock.forward(30)
    async with database.write() as connection:
        assert await chores.waits_ahead(connection, clock(), STEP, 10) == [], "they wait as they should"
        clock.forward(31)
        assert await chores.promote_due(connection, clock(), 1) == [("default", None)]
        clock.set(-86400)
        waits = await chores.waits_ahead(connection, clock(), STEP, 10)
        assert [(wait.id, wait.status) for wait in waits] == [(1, Status.PENDING), (2, Status.RETRYING)]
