from dataclasses import replace

from app.core.limits import QueueRule
from app.models import limits
from app.models.database import Database
from tests.conftest import FrozenClock
from tests.models.conftest import Claim, Insert


async def test_one_queue_is_steered_and_its_neighbour_is_not(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        a = await limits.change(connection, "a", {"max_running": 3})
        b = await limits.change(connection, "b", {})
        assert b == await limits.change(connection, "b", {}) == QueueRule("b"), "it is there already"
        a = replace(a, paused=True)
        assert await limits.change(connection, "a", {"paused": True}) == a
        assert await limits.found(connection) == {"a": a, "b": b}
        assert await limits.found(connection, ["b", "c"]) == await limits.locked(connection, ["b", "c"]) == {"b": b}
        spent = replace(a, tokens=1.5, refilled_at=clock())
        await limits.spend(connection, spent)
        assert await limits.found(connection) == {"a": spent, "b": b}


async def test_what_runs_and_what_waits_is_counted_by_queue(database: Database, insert: Insert, claim: Claim) -> None:
    await insert(*[{"queue": queue} for queue in "aaabb"], *[{"queue": "a", "concurrency_key": "k"}] * 3)
    await claim(room=1)  # two of a are ready, three are blocked
    async with database.read() as connection:
        assert await limits.running(connection, ["a", "b"]) == {"a": 1, "b": 0}
        assert await limits.depth(connection, "a", 100) == 5
        assert await limits.depth(connection, "a", 4) == 4
        assert await limits.depth(connection, "b", 100) == 2
