from dataclasses import replace
from datetime import timedelta

from app.core.task import JsonText
from app.models import workers
from app.models.database import Database
from app.models.workers import WorkerRow
from tests.conftest import FrozenClock

SILENCE = timedelta(minutes=1)


def worker(clock: FrozenClock, id_: str) -> WorkerRow:
    return WorkerRow(id_, id_, "here", 1, (), ("echo",), 2, JsonText("[]"), "running", clock(), clock.forward(1))


async def test_a_worker_comes_and_goes_alone(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        first, second = worker(clock, "w1"), worker(clock, "w2")
        for one in (first, second, first):
            await workers.save(connection, one)
        busy = replace(first, running=JsonText("[1]"))
        await workers.save(connection, busy)
        assert await workers.listed(connection, clock(), SILENCE) == [busy, second]
        await workers.remove(connection, "w1")
        assert await workers.listed(connection, clock(), SILENCE) == [second]


async def test_only_silent_workers_are_forgotten(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        for id_ in ("w1", "w2", "w3"):
            await workers.save(connection, worker(clock, id_))
        assert [one.id for one in await workers.listed(connection, clock() + SILENCE, SILENCE)] == ["w3"]
        assert await workers.remove_silent(connection, clock()) == 2
        assert [one.id for one in await workers.listed(connection, clock(), SILENCE)] == ["w3"]
