"""The broker as two kinds of process use it: who is woken, who looks by itself, and what each loss costs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.events import BrokerFound, BrokerLost, BrokerStrange, EventBus
from app.core.hint import Hint
from app.models import streams as streams_module
from app.models.streams import GROUP, Streams
from app.services import broker as broker_module
from app.services.broker import REST_SECONDS, BrokerEar, BrokerWakeup
from app.services.wakeup import CHANGES, QUEUES, Listener, PollingWakeup
from tests.conftest import until
from tests.proxy import Proxy
from tests.redis_server import RedisServer

PATIENCE_SECONDS = 10.0


@pytest.fixture
def store() -> str:
    return "sqlite"  # no store is needed here


class Own(PollingWakeup):
    """The wake-up of a store, which remembers what it was asked to say."""

    def __init__(self) -> None:
        self.notified: list[str] = []
        self.ears: list[Listener] = []

    def notify(self, channel: str, ids: Any = ()) -> None:
        self.notified.append(channel)
        for ear in self.ears:
            ear.poke(ids)

    def listen(self, channel: str) -> Listener:
        self.ears.append(Listener())
        return self.ears[-1]


class Process:
    """What a process has of the broker."""

    def __init__(self, url: str, prefix: str) -> None:
        self.own = Own()
        self.bus = EventBus()
        self.told: list[object] = []
        for kind in (BrokerLost, BrokerFound, BrokerStrange):
            self.bus.subscribe(kind, self.told.append)
        self.streams = Streams(url, prefix)
        self.broker = BrokerWakeup(self.streams, self.own, self.bus, "default")

    @property
    def works(self) -> bool:
        return self.broker.about() == {"broker": "ok"}

    async def ear(self, *queues: str) -> BrokerEar:
        """One that hears by now, and has room."""
        ear = self.broker.listen_for_work(queues)
        assert isinstance(ear, BrokerEar)
        ear.asks(True)
        await until(lambda: ear._hears)
        assert await ear.wait(PATIENCE_SECONDS)  # what was said before it could hear
        return ear


Open = Callable[..., Any]


@pytest.fixture
async def process(redis_url: str, broker_prefix: str) -> AsyncIterator[Open]:
    opened: list[Process] = []

    async def open_process(url: str = redis_url) -> Process:
        one = Process(url, broker_prefix)
        opened.append(one)
        await one.broker.open()
        return one

    yield open_process
    for one in opened:
        await one.broker.close()


async def hears(ear: BrokerEar) -> list[Hint]:
    assert await ear.wait(PATIENCE_SECONDS)
    return list(ear.heard())


async def test_work_wakes_one_worker_with_room_and_the_store_is_not_asked(process: Open) -> None:
    caller, one, two = await process(), await process(), await process()
    ears = [await one.ear("q"), await two.ear("q")]
    caller.broker.call_workers({"q": 1})
    await until(lambda: any(ear._heard for ear in ears))
    assert [len(ear._heard) for ear in ears].count(1) == 1
    caller.own.notified.clear()  # the first word about a queue goes both ways
    for ear in ears:
        ear.heard()
    caller.broker.call_workers({"q": 3})
    await until(lambda: any(ear._heard for ear in ears))
    assert caller.own.notified == []


async def test_a_worker_without_room_hears_nothing_and_work_goes_to_who_asks(process: Open) -> None:
    caller, full, free = await process(), await process(), await process()
    busy, idle = await full.ear("q"), await free.ear("q")
    busy.asks(False)
    for number in range(1, 6):
        caller.broker.call_workers({"q": number})
        assert await hears(idle) == [Hint("q", number)]
    assert busy.heard() == []


async def test_what_is_heard_too_late_is_handed_on(process: Open) -> None:
    caller, full, free = await process(), await process(), await process()
    busy = await full.ear("q")
    caller.broker.call_workers({"q": 4})
    await until(lambda: busy._heard)
    busy.asks(False)
    idle = await free.ear("q")
    await until(lambda: idle._heard)
    assert idle.heard() == [Hint("q", 4)]


async def test_a_worker_that_took_some_of_many_wakes_the_next_one(process: Open) -> None:
    caller, first, second = await process(), await process(), await process()
    one = await first.ear("q")
    caller.broker.call_workers({"q": 1000})
    await until(lambda: one._heard)
    heard = one.heard()
    one.asks(False)
    two = await second.ear("q")
    one.still_to_say(heard, {"q": 8}, {"q"})
    await until(lambda: two._heard)
    assert two.heard() == [Hint("q", 992)]


async def test_a_worker_of_every_queue_hears_of_queues_that_are_new(process: Open) -> None:
    caller, other = await process(), await process()
    ear = await other.ear()
    caller.broker.call_workers({"brand-new": 2})
    await until(lambda: ear._heard)
    assert ear.heard() == [Hint("brand-new", 2)]
    assert QUEUES in caller.own.notified  # and whoever has not learnt of the queue yet looks at once


async def test_a_worker_of_some_queues_hears_of_no_other(process: Open) -> None:
    caller, other = await process(), await process()
    ear = await other.ear("mine")
    caller.broker.call_workers({"others": 1})
    caller.broker.call_workers({"mine": 1})
    await until(lambda: ear._heard)
    assert ear.heard() == [Hint("mine", 1)]


async def test_where_the_queue_is_not_known_all_known_ones_are_called(process: Open) -> None:
    caller, other = await process(), await process()
    ear = await other.ear("a", "b")
    caller.broker.call_workers({"a": 1, "b": 1})
    await until(lambda: len(ear._heard) == 2)
    ear.heard()
    caller.broker.call_workers({})
    await until(lambda: len(ear._heard) == 2)
    assert QUEUES in caller.own.notified


async def test_cancels_and_changes_go_the_way_of_the_store(process: Open) -> None:
    caller = await process()
    caller.broker.notify(CHANGES, [1])
    assert caller.own.notified == [CHANGES]
    assert type(caller.broker.listen(CHANGES)) is Listener


async def test_an_idle_worker_looks_seldom_while_it_hears_and_often_while_it_does_not(
    process: Open, redis_url: str
) -> None:
    async with Proxy(redis_url) as proxy:
        other = await process(proxy.url)
        ear = await other.ear("q")
        assert ear.rest(1.0) == REST_SECONDS
        assert ear.rest(30.0) == 30.0
        proxy.refuses = True
        proxy.cut()
        assert await ear.wait(PATIENCE_SECONDS)  # it looks at once
        await until(lambda: ear.rest(1.0) == 1.0)
        assert not other.works
        other.broker.call_workers({"q": 1})
        await until(lambda: QUEUES in other.own.notified)
        proxy.refuses = False
        await until(lambda: ear.rest(1.0) == REST_SECONDS and other.works)
        assert [type(one) for one in other.told][-1] is BrokerFound
        await other.broker.close()


async def test_a_safety_look_is_never_more_than_five_seconds_away() -> None:
    assert REST_SECONDS * 1.1 < 5.0


async def test_hints_of_a_server_that_is_emptied_are_lost_and_everybody_looks(
    redis_server: RedisServer, process: Open
) -> None:
    caller, other = await process(redis_server.url), await process(redis_server.url)
    ear = await other.ear("q")
    async with Redis.from_url(redis_server.url) as redis:
        for _ in range(5):
            await redis.flushall()
            assert await ear.wait(PATIENCE_SECONDS)
            ear.heard()
            caller.broker.call_workers({"q": 1})
            await until(lambda: ear._heard)
            ear.heard()
    assert other.works


async def test_a_server_that_is_killed_is_found_again(redis_server: RedisServer, process: Open) -> None:
    caller, other = await process(redis_server.url), await process(redis_server.url)
    ear = await other.ear("q")
    for _ in range(3):
        redis_server.kill()
        await until(lambda: not other.works)
        began = time.monotonic()
        caller.broker.call_workers({"q": 1})
        await until(lambda: QUEUES in caller.own.notified)
        assert time.monotonic() - began < PATIENCE_SECONDS
        redis_server.start()
        await until(lambda: other.works and caller.works and ear._hears)
        ear.heard()
        caller.broker.call_workers({"q": 2})
        await until(lambda: ear._heard)


async def test_a_frozen_server_is_given_up_and_taken_again(
    redis_server: RedisServer, process: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streams._answered, "__defaults__", (0.3,))
    monkeypatch.setattr(streams_module, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(broker_module, "BLOCK_SECONDS", 0.2)
    caller, other = await process(redis_server.url), await process(redis_server.url)
    ear = await other.ear("q")
    redis_server.freeze()
    caller.broker.call_workers({"q": 1})  # as if it were well: it returns at once
    assert await ear.wait(PATIENCE_SECONDS)
    assert not other.works
    await until(lambda: QUEUES in caller.own.notified)
    redis_server.thaw()
    await until(lambda: other.works and caller.works)
    caller.broker.call_workers({"q": 1})
    await until(lambda: ear._heard)


async def test_a_server_that_is_too_slow_is_given_up_and_taken_again(
    redis_url: str, process: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streams._answered, "__defaults__", (0.2,))
    monkeypatch.setattr(streams_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(broker_module, "BLOCK_SECONDS", 0.1)
    async with Proxy(redis_url) as proxy:
        caller, other = await process(proxy.url), await process(proxy.url)
        ear = await other.ear("q")
        proxy.latency_seconds = 0.5
        assert await ear.wait(PATIENCE_SECONDS)
        assert not other.works
        caller.broker.call_workers({"q": 1})
        await until(lambda: QUEUES in caller.own.notified)
        proxy.latency_seconds = 0.0
        await until(lambda: other.works and caller.works and ear._hears)
        ear.heard()
        caller.broker.call_workers({"q": 7})
        await until(lambda: any(hint.tasks >= 7 for hint in ear._heard))
        for one in (caller, other):
            await one.broker.close()


async def test_streams_that_are_evicted_are_made_again(redis_server: RedisServer, process: Open) -> None:
    caller, other = await process(redis_server.url), await process(redis_server.url)
    ear = await other.ear("q")
    caller.broker.call_workers({"q": 1})
    await until(lambda: ear._heard)
    async with Redis.from_url(redis_server.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-random")
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + 2**20)
        filling = 0
        while await redis.exists(f"{other.streams._prefix}:queue:q"):
            await redis.set(f"filling-{filling}", "x" * 100_000)
            filling += 1
            assert filling < 10_000
        await redis.config_set("maxmemory", 0)
    await until(lambda: ear._hears and other.works)
    ear.heard()
    caller.broker.call_workers({"q": 2})
    await until(lambda: ear._heard)


async def test_a_server_whose_memory_is_full_is_told_of_until_it_takes_hints_again(
    redis_server: RedisServer, process: Open
) -> None:
    caller, other = await process(redis_server.url), await process(redis_server.url)
    ear = await other.ear("q")
    async with Redis.from_url(redis_server.url) as redis:
        await redis.config_set("maxmemory", "1")
        caller.broker.call_workers({"q": 1})
        await until(lambda: not caller.works)
        assert "memory" in caller.broker.about()["broker_warning"]
        assert QUEUES in caller.own.notified
        await asyncio.sleep(0.5)  # answering is not enough
        assert not caller.works
        await redis.config_set("maxmemory", "0")
    await until(lambda: caller.works)
    await until(lambda: ear._heard)


async def test_a_server_that_is_not_there_at_the_start_is_one_line_and_is_found_later(
    redis_server: RedisServer, process: Open
) -> None:
    redis_server.kill()
    one = await process(redis_server.url)
    assert one.told == [BrokerLost(one.streams.name, "connection refused")]
    ear = one.broker.listen_for_work(["q"])
    ear.asks(True)
    assert ear.rest(1.0) == 1.0
    redis_server.start()
    await until(lambda: one.works and ear.rest(1.0) == REST_SECONDS)


async def test_duplicates_and_junk_cost_a_look_and_nothing_more(
    process: Open, redis_url: str, broker_prefix: str
) -> None:
    other = await process()
    ear = await other.ear("q")
    async with Redis.from_url(redis_url) as redis:
        pipeline = redis.pipeline(transaction=False)
        for number in range(500):
            pipeline.xadd(f"{broker_prefix}:queue:q", {"tasks": 1, "passes": 0} if number % 2 else {"id": number})
        await pipeline.execute()
    await until(lambda: len(ear._heard) == 500)
    assert sum(one.messages for one in other.told if isinstance(one, BrokerStrange)) == 250
    assert other.works


async def test_a_worker_that_stops_leaves_the_group_and_its_hints_to_others(
    process: Open, redis_url: str, broker_prefix: str
) -> None:
    caller, one, two = await process(), await process(), await process()
    going = await one.ear("q")
    caller.broker.call_workers({"q": 5})
    await until(lambda: going._heard)
    await going.close()
    await one.broker.close()
    staying = await two.ear("q")
    await until(lambda: staying._heard)
    assert staying.heard()[0].tasks >= 5
    async with Redis.from_url(redis_url) as redis:
        readers = await redis.xinfo_consumers(f"{broker_prefix}:queue:q", GROUP)
        assert [reader["name"].decode() for reader in readers] == [two.streams._reader]


async def test_what_is_being_said_when_a_process_ends_is_heard(process: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    ending, staying = await process(), await process()
    say, begun = ending.streams.say, asyncio.Event()

    async def stall_once(hints: list[Hint]) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        await say(hints)

    monkeypatch.setattr(ending.streams, "say", stall_once)
    ending.broker.call_workers({"q": 5})
    await begun.wait()
    await ending.broker.close()
    ear = await staying.ear("q")
    await until(lambda: ear._heard)
    assert ear.heard()[0].tasks == 5


async def test_many_calls_are_said_together(process: Open, redis_url: str, broker_prefix: str) -> None:
    caller = await process()
    for _ in range(10_000):
        caller.broker.call_workers({"q": 1})
    await until(lambda: not caller.broker._unsaid)
    async with Redis.from_url(redis_url) as redis:
        message, *more = await until(lambda: redis.xrange(f"{broker_prefix}:queue:q"))
    assert message[1][b"tasks"] == b"10000"
    assert more == []
