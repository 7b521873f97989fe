"""Wake-ups through PostgreSQL: they are heard, the line is made again when it is lost, and nobody depends on it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.models import line as line_module
from app.models.database import Database
from app.models.line import PREFIX, Line
from app.services.wakeup import CANCELS, CHANGES, QUEUES, LineWakeup, PollingWakeup, open_wakeup
from tests.conftest import until
from tests.proxy import Pooler, Proxy


@pytest.fixture
def store() -> str:
    return "postgres"


@pytest.fixture
async def process(database_url: str) -> AsyncIterator[Callable[[str], Any]]:
    """Opens what a process has: a database and its wake-up."""
    opened: list[tuple[Database, LineWakeup]] = []

    async def open_process(url: str = database_url) -> LineWakeup:
        database = Database(url)
        await database.open()
        wakeup = open_wakeup(database)
        assert isinstance(wakeup, LineWakeup)
        opened.append((database, wakeup))
        return wakeup

    yield open_process
    for database, wakeup in opened:
        await wakeup.close()
        await database.close()


async def hears(ear: Any) -> None:
    """A listener is poked when the server begins to tell it; after that it hears only calls."""
    assert await ear.wait(20)


async def test_a_call_is_heard_in_every_process_that_listens_and_on_no_other_channel(process: Any) -> None:
    caller, one, two = await process(), await process(), await process()
    ears = [one.listen(QUEUES), two.listen(QUEUES)]
    deaf = one.listen(CANCELS)
    for ear in (*ears, deaf):
        await hears(ear)
    caller.notify(QUEUES)
    for ear in ears:
        await hears(ear)
    assert not await deaf.wait(0.05)


async def test_calls_that_come_together_are_sent_together(process: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, other = await process(), await process()
    heard: list[str] = []
    other._line.on_heard(lambda channel, said: heard.append(channel))
    ear = other.listen(QUEUES)
    await until(lambda: heard == [QUEUES])
    for _ in range(10_000):
        caller.notify(QUEUES)
        caller.notify(CHANGES)
    await until(lambda: len(heard) > 1)
    caller.notify(CANCELS)
    last = other.listen(CANCELS)
    await until(lambda: CANCELS in heard)
    assert len(heard) < 10
    ear.close()
    last.close()


async def test_a_call_names_the_tasks_that_changed(process: Any) -> None:
    caller, other = await process(), await process()
    ear = other.listen(CHANGES)
    assert await ear.wait(20)  # it can be heard now
    ear.named()
    caller.notify(CHANGES, [5, 7])
    assert await ear.wait(20)
    assert ear.named() == {5, 7}
    caller.notify(CHANGES)
    assert await ear.wait(20)
    assert ear.named() is None
    ear.close()


async def test_a_line_that_is_lost_is_made_again_and_everyone_looks_once(process: Any, database_url: str) -> None:
    async with Proxy(database_url) as proxy:
        caller, other = await process(), await process(proxy.url)
        ear = other.listen(QUEUES)
        await hears(ear)
        for _ in range(3):
            proxy.cut()
            await hears(ear)  # something may have been missed
            caller.notify(QUEUES)
            await hears(ear)
        ear.close()
        await other.close()


async def test_a_line_that_has_gone_silent_is_noticed(
    process: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(line_module, "DEADLINE_SECONDS", 0.3)
    async with Proxy(database_url) as proxy:
        other = await process(proxy.url)
        await until(lambda: other._line.connected)
        proxy.freeze()
        await until(lambda: not other._line.connected)
        proxy.thaw()
        await until(lambda: other._line.connected)
        await other.close()


async def test_a_server_that_drops_every_line_is_asked_less_and_less_often(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            enough.set()
        await asyncio.sleep(0)

    monkeypatch.setattr(line_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": pause}))
    async with Proxy(database_url) as proxy:
        proxy.refuses = True
        database = Database(database_url)
        await database.open()
        database._store._dsn = proxy.url  # type: ignore[attr-defined]
        line = database.line()
        assert line is not None
        running = asyncio.create_task(line.run())
        await enough.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await database.close()
    assert pauses[0] <= 0.1
    assert all(2.5 <= one <= 5.0 for one in pauses[-4:]), pauses


async def test_who_stops_listening_is_not_told_any_more(
    process: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "PING_SECONDS", 0.05)
    other = await process()
    ear = other.listen(CHANGES)
    await hears(ear)
    ear.close()
    ear.close()
    listening: set[str] = set()
    tidy = Line._tidy

    async def look(self: Line, connection: Any, heard: set[str]) -> None:
        await tidy(self, connection, heard)
        listening.clear()
        listening.update(row[0] for row in await connection.fetch("SELECT pg_listening_channels()"))
        listening.add("looked")

    monkeypatch.setattr(Line, "_tidy", look)
    await until(lambda: listening == {"looked"})
    again = other.listen(CHANGES)
    await hears(again)
    await until(lambda: PREFIX + CHANGES in listening)
    again.close()


async def test_through_a_pooler_there_is_only_polling(database_url: str) -> None:
    async with Pooler(database_url) as pooler:
        database = Database(pooler.url)
        await database.open()
        assert isinstance(open_wakeup(database), PollingWakeup)
        await database.close()
