"""Programs on many hosts with one PostgreSQL: hosts that are cut off, wake-ups that are lost, a snapshot that is held, locks that
are not given back, clocks that are wrong. How long each took to heal is printed."""

import asyncio
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import asyncpg
import httpx
import pytest

from app.core.lifecycle import Completed
from app.core.settings import Settings
from app.core.task import JsonText
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.chaos.conftest import LONG, Journal, amount, checked
from tests.chaos.test_clocks import Clocks, preloaded
from tests.conftest import SAMPLES, until
from tests.proxy import Proxy
from tests.walk.conftest import House, children_of, ended, is_alive

__all__ = ["preloaded"]

POLL_SECONDS = 1.0
LOADED_SECONDS = 10.0
"""What a busy machine may add to a time before that is a fault of ours."""
PACE = 300
"""Tasks a second, while a snapshot is held."""
QUICK = {
    "LEASE_SECONDS": "3",
    "SWEEP_SECONDS": "0.3",
    "RETRY_BASE_SECONDS": "0.05",
    "POISON_AFTER": "1000",
    "POLL_SECONDS": str(POLL_SECONDS),
    "LOG_LEVEL": "warning",
}

pytestmark = pytest.mark.timeout(1800)
only_long = pytest.mark.skipif(not LONG, reason="of the long form (CHAOS=long) alone: most of it is waiting")


@pytest.fixture
def store() -> str:
    return "postgres"


async def submit(client: httpx.AsyncClient, journal: Journal, **fields: Any) -> int:
    answer = await client.post("/tasks", json={"task_type": "echo"} | fields)
    assert answer.status_code == 201, answer.text
    journal.told(answer.json()["id"])
    return int(answer.json()["id"])


@only_long
async def test_a_worker_that_is_cut_off_stops_before_another_may_begin(house: House, journal: Journal) -> None:
    """C4: for three leases nothing passes between a worker and its database; then all does again."""
    _, client = await house.api(**QUICK)
    back: list[float] = []
    async with Proxy(house.database_url) as proxy:
        far = await house.start(
            "run_worker.py", "--processes", "1", "--queues", "shared,far", **QUICK, DATABASE_URL=proxy.url
        )
        for number in range(amount(1, 20)):
            folder = house.folder / f"round-{number}"
            folder.mkdir()
            nap = {"folder": str(folder), "seconds": 25}
            task_id = await submit(client, journal, task_type="wait_plain", queue="shared", payload=nap)
            await until(lambda folder=folder, id_=task_id: (folder / f"began-{id_}-1").exists(), 60)
            runners = children_of(far.pid)
            near = await house.start("run_worker.py", "--processes", "1", "--queues", "shared", **QUICK)
            await until(lambda: _workers(client, 2), 60)
            proxy.freeze()
            cut = time.monotonic()
            await until(lambda folder=folder, id_=task_id: (folder / f"began-{id_}-2").exists(), 60)
            assert not any(is_alive(pid) for pid in runners), "the same task runs twice at one time"
            await asyncio.sleep(max(0.0, 3 * float(QUICK["LEASE_SECONDS"]) - (time.monotonic() - cut)))
            proxy.thaw()
            healed = time.monotonic()
            await ended(client, await submit(client, journal, queue="far"), 60)
            back.append(time.monotonic() - healed)
            (folder / "go").touch()
            task = await ended(client, task_id)
            assert (task["status"], task["attempts"]) == ("completed", 2)
            attempts = (await client.get(f"/tasks/{task_id}/attempts")).json()["items"]
            assert [one["outcome"] for one in attempts] == ["lost", "completed"]
            await near.kill()
            await until(lambda: _workers(client, 1), 60)
    print(f"{len(back)} times cut off for 3 leases; at work again after {max(back):.1f} s at most")
    assert max(back) < 10 + LOADED_SECONDS
    await checked(house.database_url, journal=journal.path)


async def _workers(client: httpx.AsyncClient, number: int) -> bool:
    return len((await client.get("/workers")).json()["items"]) == number


LISTENERS = """SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND (query ILIKE '%listen%' OR query ILIKE '%pg_notify%')"""


async def test_wake_ups_that_are_lost_cost_one_poll(house: House, journal: Journal) -> None:
    """C5: the connections that listen are ended, again and again, each time just before a submission."""
    _, client = await house.api(**QUICK)
    await house.worker(**QUICK | {"LOG_LEVEL": "info"})
    server = await asyncpg.connect(house.database_url)
    await ended(client, await submit(client, journal), 60)

    async def all_listen() -> bool:
        return len(await server.fetch(LISTENERS)) >= 2

    taken, again = [], []
    for _ in range(amount(3, 50)):
        await until(all_listen, 60)
        for (pid,) in await server.fetch(LISTENERS):
            await server.execute("SELECT pg_terminate_backend($1)", pid)
        began = time.monotonic()
        task_id = await submit(client, journal)
        await until(lambda id_=task_id: _is_done(client, id_), 60)
        taken.append(time.monotonic() - began)
        await until(all_listen, 60)
        again.append(time.monotonic() - began)
    await server.close()
    late = quantiles(taken, n=100, method="inclusive")[98]
    print(f"{len(taken)} losses: done after {late:.2f} s (p99), they listen again after {max(again):.2f} s at most")
    assert late < POLL_SECONDS + 0.2 + LOADED_SECONDS
    assert max(again) < 5 + LOADED_SECONDS
    await checked(house.database_url, journal=journal.path, final=True)


async def _is_done(client: httpx.AsyncClient, task_id: int) -> bool:
    return bool((await client.get(f"/tasks/{task_id}")).json()["status"] == "completed")


class Pace:
    """Ten tasks at a time are submitted, claimed and completed, so many a second as are asked for."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def keep(self, seconds: float) -> tuple[float, float]:
        """Tasks a second that it came to, and the claims' p99 in ms."""
        claims: list[float] = []
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            await self._ten(claims)
            await asyncio.sleep(max(0.0, began + len(claims) * 10 / PACE - time.monotonic()))
        return 10 * len(claims) / passed, 1000 * quantiles(claims, n=100)[98]

    async def _ten(self, claims: list[float]) -> None:
        prepared = [self._services.intake.prepare(Submission(task_type="echo")) for _ in range(10)]
        await self._services.tasks.submit_all(prepared)
        began = time.monotonic()
        exchange = await self._services.queue.exchange("w", [], _ten_of_them)
        claims.append(time.monotonic() - began)
        now = self._services.database.clock()()
        await self._services.queue.exchange(
            "w", [Ended(one, Completed(JsonText("1")), now, 0) for one in exchange.claimed]
        )


DEAD = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'tasks'"
"""Exact just after a VACUUM."""


def _ten_of_them(heads: Any) -> list[Wish]:
    return [Wish(tuple((one.queue, one.task_type) for one in heads), 10)]


@pytest.mark.usefixtures("quiet")
async def test_a_snapshot_that_is_held_slows_claims_down_for_as_long_as_it_is_held(
    database_url: str, tmp_path: Path
) -> None:
    """C7: vacuum can take nothing away meanwhile, so dead rows pile up in front of the live ones."""
    settings = Settings(database_url=database_url, files_dir=tmp_path / "files", executor_modules=(SAMPLES,))
    holder, server = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    async with open_services(settings) as services:
        pace = Pace(services)
        before = await pace.keep(amount(1, 20))
        async with holder.transaction(isolation="repeatable_read"):
            await holder.fetchval("SELECT count(*) FROM tasks")
            held = await pace.keep(amount(2, 300))
            await server.execute("VACUUM tasks")
            dead = await server.fetchval(DEAD)
            age = await server.fetchval("SELECT max(age(backend_xmin)) FROM pg_stat_activity")
        await server.execute("VACUUM tasks")
        left = await server.fetchval(DEAD)
        after = await pace.keep(amount(1, 20))
    phases = (("before", before), ("held", held), ("after", after))
    print(*(f"{word} {rate:.0f} tasks/s, claims p99 {late:.1f} ms;" for word, (rate, late) in phases))
    print(f"{dead} dead rows that VACUUM had to leave, xmin {age} transactions old; {left} after it was let go")
    assert dead > 10 > left
    if LONG:
        assert held[0] > 0.6 * before[0]
    await holder.close()
    await server.close()
    await checked(database_url, final=True)


@only_long
async def test_who_gets_no_connection_is_refused_in_time(house: House, journal: Journal) -> None:
    """C13: two connections, both stuck behind somebody's lock, and a hundred requests."""
    _, client = await house.api(**QUICK, DATABASE_CONNECTIONS="2")
    locker = await asyncpg.connect(house.database_url)
    refused: list[float] = []
    healed: list[float] = []

    async def ask(number: int) -> None:
        began = time.monotonic()
        if number % 2:
            answer = await client.get(f"/tasks/{number}")
        else:
            answer = await client.post("/tasks", json={"task_type": "echo"})
        refused.append(time.monotonic() - began)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1

    for _ in range(amount(1, 10)):
        async with locker.transaction():
            await locker.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
            await asyncio.gather(*(ask(number) for number in range(100)))
        began = time.monotonic()
        await submit(client, journal)
        healed.append(time.monotonic() - began)
    await locker.close()
    print(f"{len(refused)} refused after {max(refused):.1f} s at most; the next was taken after {max(healed):.2f} s")
    assert max(refused) < 5 + 4 + LOADED_SECONDS  # for a connection, then for the lock
    assert max(healed) < LOADED_SECONDS
    await checked(house.database_url, journal=journal.path)


async def test_hosts_whose_clocks_are_ten_minutes_off_take_nothing_early(
    house: House, preloaded: Path, journal: Journal
) -> None:
    """E2: one worker is ahead, one behind, and so is the API; half of the tasks are for later."""
    clocks = Clocks(preloaded, house.folder)
    for role, minutes in (("worker", 10), ("sweeper", -10), ("api", -10)):
        clocks.set(role, 60 * minutes)
    ours = QUICK | {"EXECUTOR_MODULES": SAMPLES, "LEASE_SECONDS": "10"}
    _, client = await house.api(**clocks.settings("api") | ours)
    for role in ("worker", "sweeper"):
        await house.start("run_worker.py", "--processes", "1", **clocks.settings(role) | ours)
    wanted = amount(400, 10_000)
    tasks = [{"task_type": "echo", "delay_seconds": number % 2 * 5} for number in range(wanted)]
    for start in range(0, wanted, 1000):
        answer = await client.post("/tasks/bulk", json={"tasks": tasks[start : start + 1000]})
        assert answer.status_code == 201, answer.text
        for id_ in answer.json()["ids"]:
            journal.told(id_)

    async def all_done() -> bool:
        return bool((await client.get("/stats")).json()["completed"] == wanted)

    await until(all_done, amount(60, 300))
    server = await asyncpg.connect(house.database_url)
    early = await server.fetchval("SELECT count(*) FROM tasks WHERE started_at < scheduled_at")
    leases = await server.fetch("SELECT DISTINCT attempts, lease FROM tasks")
    workers = await server.fetchval("SELECT count(DISTINCT worker_id) FROM tasks")
    await server.close()
    print(f"{wanted} tasks by {workers} workers, {early} early")
    assert early == 0
    assert [tuple(row) for row in leases] == [(1, 1)], "a lease that lived was taken back"
    await checked(house.database_url, journal=journal.path, final=True)
