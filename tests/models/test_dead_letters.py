from typing import Any

from app.core.task import JsonText, Status, TaskError
from app.models import chores, dead_letters, queue, tasks
from app.models.database import Connection, Database
from app.models.dead_letters import DeadFilter
from tests.conftest import FrozenClock
from tests.models.conftest import STEP, Claim, Insert
from tests.models.test_queue import change, read

A, B = "a" * 16, "b" * 16


async def failed(database: Database, insert: Insert, claim: Claim, clock: FrozenClock, *of: dict[str, Any]) -> None:
    """Tasks that failed; `fingerprint` among what is given, A if not."""
    await insert(*({name: value for name, value in one.items() if name != "fingerprint"} for one in of))
    claimed = {task.id: task for task in await claim(room=len(of))}
    async with database.write() as connection:
        for (_, task), one in zip(sorted(claimed.items()), of, strict=True):
            values = {"failure_reason": "error", "error": TaskError("E", f"{task.id}", 1, clock())}
            end = change(task, clock(), fingerprint=one.get("fingerprint", A), **values)
            assert await queue.apply(connection, [end])


async def ids(connection: Connection, **wanted: Any) -> list[int]:
    return [task.id for task in await dead_letters.search(connection, DeadFilter(**wanted), 10)]


async def test_dead_letters_are_found_by_what_is_asked_for(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await failed(database, insert, claim, clock, {}, {"queue": "b"}, {"task_type": "greet", "fingerprint": B}, {})
    async with database.write() as connection:
        assert await dead_letters.resolve(connection, [4], clock(), "done") == [4]
        assert await ids(connection) == [3, 2, 1]
        assert await ids(connection, queue="b") == [2]
        assert await ids(connection, task_type="greet") == await ids(connection, fingerprint=B) == [3]
        assert await ids(connection, ids=(1, 3, 4)) == [3, 1]
        assert [task.id for task in await dead_letters.search(connection, DeadFilter(), 10, before_id=3)] == [2, 1]
        assert await dead_letters.count(connection, DeadFilter(queue="default")) == 2
        chosen = await dead_letters.choose(connection, DeadFilter(fingerprint=A), 0, 10)
        assert [one.id for one in chosen] == [1, 2]
        assert [one.id for one in await dead_letters.choose(connection, DeadFilter(), 1, 10)] == [2, 3]


async def test_a_group_has_the_letters_of_its_cause(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    of = ({"tenant": "acme"}, {"tenant": "acme", "fingerprint": B}, {}, {}, {"tenant": "acme"})
    await failed(database, insert, claim, clock, *of)
    async with database.write() as connection:
        await dead_letters.resolve(connection, [5], clock(), None)
        found = await dead_letters.groups(connection, DeadFilter(), 10, 2)
        assert [(one.fingerprint, one.count, one.task_ids) for one in found] == [(A, 3, (4, 3)), (B, 1, (2,))]
        assert ['"message":"4"' in str(found[0].error), '"message":"2"' in str(found[1].error)] == [True, True]
        found = await dead_letters.groups(connection, DeadFilter(tenant="acme"), 10, 2)
        assert [(one.fingerprint, one.count, one.task_ids) for one in found] == [(A, 1, (1,)), (B, 1, (2,))]
        found = await dead_letters.groups(connection, DeadFilter(tenant="acme", fingerprint=B), 10, 2)
        assert [one.fingerprint for one in found] == [B]


async def test_only_the_dead_are_dealt_with_and_only_those_named(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await failed(database, insert, claim, clock, *[{}] * 5)
    await insert({}, {"expires_at": clock.forward(1)})
    async with database.write() as connection:
        assert await dead_letters.resolve(connection, [1, 6, 9], clock(), "done") == [1]
        assert await dead_letters.resolve(connection, [1, 2], clock.forward(1), "again") == [2]
        # The first two were resolved, the sixth waits.
        assert await dead_letters.requeue(connection, [1, 3, 6], clock(), STEP) == [(3, None)]
        assert await ids(connection) == [5, 4]
        assert await tasks.cancel_waiting(connection, 3, clock())
        assert await dead_letters.requeue(connection, [3], clock(), STEP) == [], "somebody has cancelled it"
        error = JsonText("{}")
        assert await chores.expire(connection, [7], clock(), error, B) == [7]
        assert await dead_letters.requeue(connection, [7], clock(), STEP) == [(7, None)]
    assert (await read(database, 1)).resolution == "done"
    assert (await read(database, 7)).status is Status.PENDING
