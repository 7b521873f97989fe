"""Processes that are killed, frozen and restarted under load: nothing acknowledged is lost, nothing ends twice."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.chaos.conftest import Journal, amount, checked
from tests.conftest import until
from tests.walk.conftest import House, Program, ended, freeze

EXECUTORS = "tests.chaos_executors"
QUICK = {
    "EXECUTOR_MODULES": EXECUTORS,
    "LEASE_SECONDS": "1.5",
    "SWEEP_SECONDS": "0.3",
    "RETRY_BASE_SECONDS": "0.05",
    "RETRY_CEILING_SECONDS": "0.5",
    "STOP_GRACE_SECONDS": "1",
    "POISON_AFTER": "1000",  # whoever is killed here is not to blame
    "LOG_LEVEL": "warning",
}


async def submit_traced(
    client: httpx.AsyncClient, trace: Path, count: int, random: Random, most_ms: float
) -> list[int]:
    """Many tasks that leave a trace, some longer than others."""
    ids: list[int] = []
    for start in range(0, count, 5000):
        tasks = [
            {
                "task_type": "traced",
                "payload": {"file": str(trace), "number": number, "milliseconds": random.uniform(0, most_ms)},
            }
            for number in range(start, min(count, start + 5000))
        ]
        answer = await client.post("/tasks/bulk", json={"tasks": tasks})
        assert answer.status_code == 201, answer.text
        ids += answer.json()["ids"]
    return ids


def traces(trace: Path) -> tuple[Counter[int], Counter[int]]:
    """How often each task began, and ended."""
    starts: Counter[int] = Counter()
    ends: Counter[int] = Counter()
    for line in trace.read_text().splitlines():
        word, task_id = line.split()
        (starts if word == "start" else ends)[int(task_id)] += 1
    return starts, ends


async def completed(client: httpx.AsyncClient) -> int:
    number: int = (await client.get("/stats")).json()["completed"]
    return number


async def at_work(client: httpx.AsyncClient, pid: int) -> bool:
    return any(one["pid"] == pid for one in (await client.get("/workers")).json()["items"])


async def worker(house: House, name: str) -> Program:
    return await house.start("run_worker.py", "--processes", "1", "--name", name, **QUICK)


async def test_workers_killed_again_and_again_lose_nothing_and_end_nothing_twice(
    house: House, tmp_path: Path, random: Random
) -> None:
    """Matrix A1."""
    _, client = await house.api(**QUICK)
    trace = tmp_path / "trace"
    count, workers = amount(1500, 20_000), amount(2, 4)
    ids = await submit_traced(client, trace, count, random, amount(6, 60))
    running = [await worker(house, f"w{number}") for number in range(workers)]
    kills, most = 0, amount(4, 300)
    while await completed(client) < count:
        await asyncio.sleep(random.uniform(0.3, 1.2))  # the interval between kills, which is part of the experiment
        if kills < most:  # then they are left in peace: a busy machine may need longer to start one than it would live
            victim = random.randrange(workers)
            await running[victim].kill()
            kills += 1
            running[victim] = await worker(house, f"w{victim}")
    starts, ends = traces(trace)
    assert kills == most, "it was faster than we could kill"
    assert set(ends) == set(ids)
    extra = sum(starts.values()) - count
    print(f"{count} tasks, {kills} kills, {extra} extra runs")
    for one in running:
        one.signal(signal.SIGTERM)
    for one in running:
        assert await one.ended() == 0
    await checked(house.database_url, final=True)


async def test_a_frozen_worker_that_wakes_is_refused_every_time(house: House, tmp_path: Path) -> None:
    """Matrix A2: its runner finishes while it sleeps, another worker completes the task, then it wakes and reports."""
    _, client = await house.api(**QUICK)
    workers = {
        name: await house.start("run_worker.py", "--processes", "1", "--name", name, **QUICK | {"LOG_LEVEL": "info"})
        for name in "ab"
    }
    for one in workers.values():
        await one.says("worker started")
    rounds = amount(3, 200)
    for number in range(rounds):
        gate = tmp_path / f"gate-{number}"
        task_id = (await client.post("/tasks", json={"task_type": "held", "payload": {"gate": str(gate)}})).json()["id"]

        async def holder(task_id: int = task_id) -> str | None:
            task = (await client.get(f"/tasks/{task_id}")).json()
            return str(task["worker_id"])[0] if task["status"] == "running" else None

        name = await until(holder, 60)
        await freeze(workers[name], house)
        gate.touch()
        task = await ended(client, task_id)
        assert (task["status"], task["result"], task["attempts"]) == ("completed", 2, 2), task
        woken_at = datetime.now(UTC)
        workers[name].signal(signal.SIGCONT)

        async def is_free(name: str = name, woken_at: datetime = woken_at) -> bool:
            """It has noticed, and said since that nothing runs there any more."""
            for one in (await client.get("/workers")).json()["items"]:
                if one["name"] == name and datetime.fromisoformat(one["beat_at"]) > woken_at:
                    return not one["running"]
            return False

        await until(is_free, 60)
        assert (await client.get(f"/tasks/{task_id}")).json() == task
    await checked(house.database_url, final=True)


async def test_rolling_restarts_charge_no_attempt_and_run_nothing_twice(
    house: House, tmp_path: Path, random: Random
) -> None:
    """Matrix A4: every task fits the grace, so none is handed back once it runs."""
    _, client = await house.api(**QUICK)
    trace = tmp_path / "trace"
    count, workers, restarts = amount(1500, 10_000), amount(2, 4), amount(3, 50)
    ids = await submit_traced(client, trace, count, random, amount(5, 40))
    running = [await worker(house, f"w{number}") for number in range(workers)]
    for number in range(restarts):
        before = await completed(client)
        if before < count:
            await until(lambda before=before: _moved(client, before, count))
        old = running[number % workers]
        await until(lambda old=old: at_work(client, old.pid), 60)  # before that it ends as any program does
        old.signal(signal.SIGTERM)
        running[number % workers] = await worker(house, f"w{number % workers}")
        assert await old.ended() == 0
    await until(lambda: _moved(client, count - 1, count), 300)
    starts, ends = traces(trace)
    assert set(starts.values()) == set(ends.values()) == {1}
    assert set(ends) == set(ids)
    page = (await client.get("/tasks", params={"limit": 500})).json()["items"]
    assert {task["attempts"] for task in page} == {1}
    await checked(house.database_url, final=True)


async def _moved(client: httpx.AsyncClient, before: int, count: int) -> bool:
    now = await completed(client)
    return now > before or now == count


async def test_the_api_killed_under_many_clients_keeps_its_word(house: House, journal: Journal) -> None:
    """Matrix A6: whoever got no answer asks again with the same key; there is one task for each key."""
    kills, clients, least = amount(2, 20), amount(32, 64), amount(1000, 20_000)
    port, stop = 0, False
    keys: set[str] = set()

    async def client_of(number: int) -> None:
        async with httpx.AsyncClient(timeout=10) as http:
            count = 0
            while not stop:
                key = f"{number}-{count}"
                try:
                    answer = await http.post(
                        f"http://127.0.0.1:{port}/tasks",
                        json={"task_type": "traced", "payload": {"file": "/dev/null", "number": count}},
                        headers={"Idempotency-Key": key},
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.02)  # nobody listens just now
                    continue
                if answer.status_code in (200, 201):
                    journal.told(answer.json()["id"], key)
                    keys.add(key)
                    count += 1
                else:
                    assert answer.status_code == 503, answer.text

    program, client = await house.api(**QUICK)
    port = client.base_url.port or 0
    crowd = [asyncio.create_task(client_of(number)) for number in range(clients)]
    back = []
    for number in range(kills):
        wanted = least * (number + 1) // (kills + 1)
        await until(lambda wanted=wanted: len(keys) > wanted, 120)
        await program.kill()
        began = time.monotonic()
        program, client = await house.api(port=port, **QUICK)
        back.append(time.monotonic() - began)
    await until(lambda: len(keys) > least, 120)
    stop = True
    await asyncio.gather(*crowd)
    stored = (await client.get("/stats")).json()
    print(f"{len(keys)} keys, {kills} kills, back after {max(back):.1f} s at most")
    assert stored["ready"] >= len(keys)
    assert stored["ready"] - len(keys) <= clients * (kills + 1)
    await program.kill()
    await checked(house.database_url, journal=journal.path)


async def test_an_api_that_is_told_to_stop_answers_what_it_accepted(house: House, journal: Journal) -> None:
    """Matrix A5."""
    program, client = await house.api(**QUICK)
    base = client.base_url
    told = 0

    async def client_of(number: int) -> Any:
        nonlocal told
        async with httpx.AsyncClient(base_url=base, timeout=30) as http:
            for count in range(10_000):
                body = {"task_type": "traced", "payload": {"file": "/dev/null", "number": count}}
                try:
                    answer = await http.post("/tasks", json=body, headers={"Idempotency-Key": f"{number}-{count}"})
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError) as error:
                    return error
                if answer.status_code != 201:
                    assert answer.status_code == 503, answer.text
                    return None
                journal.told(answer.json()["id"], f"{number}-{count}")
                told += 1
        return None

    crowd = [asyncio.create_task(client_of(number)) for number in range(64)]
    await until(lambda: told > 500)
    program.signal(signal.SIGTERM)
    await asyncio.gather(*crowd)
    with contextlib.suppress(ProcessLookupError):
        assert await program.ended() == 0
    await checked(house.database_url, journal=journal.path)
