"""Real processes with a broker between them: work is shared, and whatever becomes of the broker, no task is lost."""

import asyncio
import signal
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.conftest import STORES, until
from tests.redis_server import RedisServer
from tests.walk.conftest import House, ended

pytestmark = pytest.mark.parametrize("store", STORES)

FALLBACK_SECONDS = 5.0


@pytest.fixture
def broker(house: House, redis_url: str, broker_prefix: str) -> dict[str, str]:
    return {"BROKER_URL": redis_url, "BROKER_PREFIX": broker_prefix}


async def picked_up(client: httpx.AsyncClient, **fields: Any) -> float:
    """Seconds from the submission of a task to its start."""
    answer = await client.post("/tasks/", json={"task_type": "echo", "payload": {"number": 1}, **fields})
    assert answer.status_code == 201
    began = time.monotonic()
    await ended(client, answer.json()["id"])
    return time.monotonic() - began


async def all_done(client: httpx.AsyncClient, number: int) -> bool:
    stats = (await client.get("/stats")).json()
    return bool(stats["completed"] == number)


async def test_work_is_shared_by_workers_that_ask_for_it(house: House, broker: dict[str, str]) -> None:
    _, client = await house.api(**broker)
    assert (await client.get("/health")).json()["checks"]["broker"] == "ok"
    for name in ("a", "b", "c"):
        await house.worker("--name", name, "--concurrency", "1", **broker)
    await picked_up(client)
    nap = {"folder": str(house.folder), "seconds": 0.3}
    tasks = [{"task_type": "wait_plain", "payload": nap, "queue": f"q{number % 3}"} for number in range(30)]
    ids = (await client.post("/tasks/bulk", json={"tasks": tasks})).json()["ids"]
    found = [await ended(client, task_id) for task_id in ids]
    assert {task["status"] for task in found} == {"completed"}
    shares = Counter(task["worker_id"].rsplit("-", 1)[0] for task in found)
    assert set(shares) == {"a", "b", "c"}, shares


async def test_a_broker_that_is_killed_frozen_and_emptied_costs_time_and_no_task(
    house: House, redis_server: RedisServer
) -> None:
    broker = {"BROKER_URL": redis_server.url}
    _, client = await house.api(**broker)
    worker = await house.worker(**broker)
    number = 0

    async def works(within: float) -> None:
        nonlocal number
        number += 1
        assert await picked_up(client) < within + 15  # a loaded machine takes its time; see docs/scaling.md for figures

    await works(FALLBACK_SECONDS)
    redis_server.freeze()
    await works(FALLBACK_SECONDS)
    redis_server.thaw()
    await works(FALLBACK_SECONDS)
    redis_server.kill()
    await works(FALLBACK_SECONDS)
    await worker.says("the broker cannot be used now")
    assert (await client.get("/health")).json()["status"] == "degraded"
    assert (await client.get("/health/ready")).status_code == 200
    redis_server.start()
    await worker.says("the broker can be used")
    await works(FALLBACK_SECONDS)
    async with Redis.from_url(redis_server.url) as redis:
        for _ in range(5):
            await redis.flushall()
            await works(FALLBACK_SECONDS)
    assert await all_done(client, number)
    attempts = [(await client.get(f"/tasks/{task_id}/attempts")).json()["items"] for task_id in range(1, number + 1)]
    assert {len(one) for one in attempts} == {1}
    await until(lambda: _is_ok(client))


async def _is_ok(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/health")).json()["checks"].get("broker") == "ok")


async def test_ids_pushed_ten_times_out_of_order_with_junk_run_once(
    house: House, broker: dict[str, str], redis_url: str, broker_prefix: str
) -> None:
    _, client = await house.api(**broker)
    for _ in range(2):
        await house.worker(**broker)
    tasks = [{"task_type": "echo", "payload": {"number": 1}}] * 50
    async with Redis.from_url(redis_url) as redis:
        pushing = redis.pipeline(transaction=False)
        for id_ in [*range(60, 0, -1)] * 10:
            pushing.xadd(f"{broker_prefix}:queue:default", {"id": id_})
        ids, _ = await asyncio.gather(client.post("/tasks/bulk", json={"tasks": tasks}), pushing.execute())
    await until(lambda: all_done(client, 50))
    for task_id in ids.json()["ids"]:
        assert len((await client.get(f"/tasks/{task_id}/attempts")).json()["items"]) == 1


async def test_programs_that_stop_leave_nobody_in_the_groups(
    house: House, broker: dict[str, str], redis_url: str, broker_prefix: str
) -> None:
    _, client = await house.api(**broker)
    worker = await house.worker(**broker)
    await picked_up(client)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    async with Redis.from_url(redis_url) as redis:
        assert await redis.xinfo_consumers(f"{broker_prefix}:queue:default", "workers") == []


@pytest.mark.parametrize("script", ["run_api.py", "run_worker.py"])
@pytest.mark.parametrize(
    "address", ["http://127.0.0.1", "redis://", "redis://user:pass word@[::1", "redis://h:99999", "redis://h/zero"]
)
async def test_an_address_that_cannot_be_one_is_one_line_and_status_2(house: House, script: str, address: str) -> None:
    program = await house.start(script, BROKER_URL=address)
    assert await program.ended() == 2
    said = program.said().strip()
    assert said.startswith("Wrong setting: BROKER_URL")
    assert "\n" not in said
    assert "pass word" not in said


async def test_a_wrong_password_is_a_warning_without_it_and_the_service_works(
    house: House, redis_server: RedisServer
) -> None:
    redis_server.kill()
    redis_server.start("--requirepass", "right")
    broker = {"BROKER_URL": redis_server.url.replace("//", "//:mistaken@")}
    api, client = await house.api(**broker)
    worker = await house.worker(**broker)
    await picked_up(client)
    for program in (api, worker):
        await program.says("the broker cannot be used now")
        assert "mistaken" not in program.said()
    health = (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert "password" in health["checks"]["broker_warning"]
    codes = [one["code"] for one in (await client.get("/diagnosis")).json()["items"]]
    assert "broker-unavailable" in codes
