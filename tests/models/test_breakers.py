from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert as insert_into
from sqlalchemy.exc import IntegrityError

from app.core.breaker import BreakerState, Circuit, trip
from app.models import breakers, queue, tables
from app.models.database import Database
from tests.conftest import FrozenClock
from tests.models.conftest import Claim, Insert


async def test_a_breaker_comes_back_as_it_was_saved(database: Database, clock: FrozenClock) -> None:
    whole = Circuit(
        *("api", BreakerState.HALF_OPEN, 3, clock(), 2, clock(), clock() + timedelta(seconds=9), "no route", True),
        let_through=((1, 2), (3, 4)),
    )
    bare = Circuit("bare", failures=1)
    async with database.write() as connection:
        for circuit in (whole, bare):
            await breakers.save(connection, circuit)
        assert await breakers.found(connection) == {"api": whole, "bare": bare}
        changed = replace(whole, state=BreakerState.OPEN, reason=None, open_until=None, let_through=())
        await breakers.save(connection, changed)
        await breakers.remove(connection, ["bare", "nobody"])
    async with database.read() as connection:
        assert await breakers.found(connection) == {"api": changed}


async def test_an_attempt_is_running_only_under_its_own_lease(database: Database, insert: Insert, claim: Claim) -> None:
    await insert({}, {}, {})
    first, second = await claim(room=2)
    async with database.write() as connection:
        leases = [(first.id, first.lease), (second.id, second.lease + 1), (3, 1), (99, 1)]
        assert await breakers.running(connection, leases) == {(first.id, first.lease)}


async def test_what_waits_is_counted_by_task_type_in_every_queue(
    database: Database, insert: Insert, claim: Claim
) -> None:
    await insert({}, {"queue": "b"}, {"task_type": "greet"}, {"task_type": "other"}, {"priority": 9})
    await claim(room=1)
    async with database.read() as connection:
        assert await breakers.waiting(connection, ["echo", "greet", "none"]) == 3
        assert await breakers.waiting(connection, []) == 0


async def test_heads_say_whether_there_are_breakers_to_look_at(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    await insert({}, {"queue": "b"})
    async with database.write() as connection:
        assert [head.breakers for head in (await queue.front(connection)).heads] == [False, False]
        await breakers.save(connection, trip("api", "down", None, clock()))
        assert [head.breakers for head in (await queue.front(connection)).heads] == [True, True]


@pytest.mark.parametrize("values", [{"state": "ajar"}, {"state": "open", "opened_at": None}])
async def test_the_table_refuses_what_no_breaker_can_be(
    database: Database, clock: FrozenClock, values: dict[str, object]
) -> None:
    row = {"name": "api", "failures": 0, "trips": 0, "tripped_by_hand": False, "let_through": "[]"}
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert_into(tables.breakers).values(row | {"opened_at": clock()} | values))
