"""Whatever happens to the broker, tasks are done, each once: the service of real programs, with a Redis server of its own that is
emptied, killed, filled up, sent junk, frozen, slowed down and cut off. It costs time, and how much is printed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.models.streams import GROUP
from tests.chaos.conftest import Journal, amount, checked
from tests.conftest import until
from tests.proxy import Proxy
from tests.redis_server import RedisServer
from tests.walk.conftest import House, ended

SAFETY_SECONDS = 5.0
"""By then an idle worker has looked by itself, whatever it heard."""
LOADED_SECONDS = 25.0
"""What a busy machine may add before that is a fault of ours."""

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def store() -> str:
    return "postgres"


@dataclass
class Scene:
    """The programs and what stands between them and their broker."""

    house: House
    client: httpx.AsyncClient
    server: RedisServer
    proxy: Proxy
    journal: Journal
    random: Random
    submitted: int = 0

    @property
    def stream(self) -> str:
        return "tasks:queue:default"

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Any]:
        async with Redis.from_url(self.server.url) as redis:
            yield redis

    async def submit(self) -> int:
        """The API answers 201 whatever the broker does."""
        self.submitted += 1
        body = {"task_type": "echo", "payload": {"number": self.submitted}, "max_attempts": 1}
        answer = await self.client.post("/tasks", json=body)
        assert answer.status_code == 201, answer.text
        self.journal.told(answer.json()["id"])
        return int(answer.json()["id"])

    async def is_well(self) -> bool:
        """The API says so, and a task starts as fast as a hint travels."""
        if (await self.client.get("/health")).json()["checks"].get("broker") != "ok":
            return False
        began = time.monotonic()
        await ended(self.client, await self.submit())
        return time.monotonic() - began < 1.0


async def emptied(scene: Scene) -> None:
    async with scene.redis() as redis:
        for _ in range(5):
            await redis.flushall()
            await asyncio.sleep(0.2)


async def killed(scene: Scene) -> None:
    for _ in range(amount(2, 10)):
        scene.server.kill()
        await asyncio.sleep(scene.random.uniform(0.2, 1.0))
        await asyncio.to_thread(scene.server.start)
        await asyncio.sleep(scene.random.uniform(0.0, 0.5))


async def evicting(scene: Scene) -> None:
    async with scene.redis() as redis:
        await redis.config_set("maxmemory-policy", "allkeys-random")
        await redis.config_set("maxmemory", (await redis.info("memory"))["used_memory"] + 2**20)
        for number in range(1000):
            if not await redis.exists(scene.stream):
                break
            await redis.set(f"filling-{number}", "x" * 100_000)
        else:
            raise AssertionError("nothing of ours was evicted")
        await redis.flushall()
        await redis.config_set("maxmemory", 0)


async def full(scene: Scene) -> None:
    async with scene.redis() as redis:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.config_set("maxmemory", 1)
        await asyncio.sleep(amount(2, 10))
        await redis.config_set("maxmemory", 0)


async def junk(scene: Scene) -> None:
    """Every id ten times, out of order, with some that there are not, and things that are no hints."""
    async with scene.redis() as redis:
        ids = [*range(1, scene.submitted + 20)] * 10
        scene.random.shuffle(ids)
        pushing = redis.pipeline(transaction=False)
        for id_ in ids:
            pushing.xadd(
                scene.stream, scene.random.choice([{"id": id_}, {"tasks": id_, "passes": 0}, {"tasks": "many"}])
            )
        await pushing.execute()


async def frozen(scene: Scene) -> None:
    scene.server.freeze()
    await asyncio.sleep(amount(3, 10))
    scene.server.thaw()


async def slow(scene: Scene) -> None:
    scene.proxy.latency_seconds = 2.0
    await asyncio.sleep(amount(3, 15))
    scene.proxy.latency_seconds = 0.0


async def cut_within_answers(scene: Scene) -> None:
    """No answer may ever be taken for that to another question."""
    for _ in range(amount(10, 100)):
        scene.proxy.cut_answer_after(scene.random.randrange(1, 30))
        await asyncio.sleep(0.1)


async def robbed(scene: Scene) -> None:
    """Readers removed from the group, streams cut short, the group destroyed."""
    async with scene.redis() as redis:
        for _ in range(amount(3, 20)):
            try:
                for reader in await redis.xinfo_consumers(scene.stream, GROUP):
                    await redis.xgroup_delconsumer(scene.stream, GROUP, reader["name"])
                await redis.xtrim(scene.stream, maxlen=0)
                await redis.xgroup_destroy(scene.stream, GROUP)
            except ResponseError:
                pass  # not made again yet
            await asyncio.sleep(0.2)


FAULTS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "emptied (D1)": emptied,
    "killed (D2)": killed,
    "evicting (D3)": evicting,
    "full (D3)": full,
    "junk (D4)": junk,
    "frozen (D5)": frozen,
    "2 s late (D5)": slow,
    "cut within answers (D5)": cut_within_answers,
    "robbed (D6)": robbed,
}


async def test_whatever_happens_to_the_broker_every_task_is_done_once(
    house: House, redis_server: RedisServer, journal: Journal, random: Random
) -> None:
    async with Proxy(redis_server.url) as proxy:
        broker = {"BROKER_URL": proxy.url, "LOG_LEVEL": "warning"}
        _, client = await house.api(**broker)
        for _ in range(2):
            await house.start("run_worker.py", "--processes", "1", **broker)
        scene = Scene(house, client, redis_server, proxy, journal, random)
        await until(scene.is_well, 60)
        server = await asyncpg.connect(house.database_url)
        for name, fault in FAULTS.items():
            first = scene.submitted
            harm = asyncio.create_task(fault(scene))
            while not harm.done():
                await scene.submit()
                await asyncio.sleep(0.05)
            await harm
            mended = time.monotonic()
            await until(scene.is_well, 2 * LOADED_SECONDS)
            healed = time.monotonic() - mended
            await until(lambda: _all_done(client, scene.submitted), LOADED_SECONDS)
            asked = "SELECT max(started_at - created_at) FROM tasks WHERE id > $1"
            seconds = await server.fetchval(asked, first) / 1000
            print(
                f"{name}: {scene.submitted - first} tasks, longest to a start {seconds:.1f} s, well after {healed:.1f} s"
            )
            assert seconds < SAFETY_SECONDS + LOADED_SECONDS
        rows = await server.fetch("SELECT DISTINCT status, attempts, lease FROM tasks")
        await server.close()
        assert [tuple(row) for row in rows] == [("completed", 1, 1)]
    await checked(house.database_url, journal=journal.path, final=True)


async def _all_done(client: httpx.AsyncClient, number: int) -> bool:
    return bool((await client.get("/stats")).json()["completed"] == number)
