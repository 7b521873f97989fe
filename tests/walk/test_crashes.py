"""Kills and freezes: what was acknowledged is there, what was running runs again, and a sleeper changes nothing."""

import asyncio
import contextlib
import os
import signal

import httpx
import pytest

from tests.conftest import STORES, until
from tests.walk.conftest import House, children_of, ended, freeze, is_alive

pytestmark = pytest.mark.parametrize("store", STORES)

QUICK = {"LEASE_SECONDS": "1.5", "SWEEP_SECONDS": "0.3", "RETRY_BASE_SECONDS": "0.05", "STOP_GRACE_SECONDS": "1"}


async def test_the_api_killed_at_any_moment_loses_no_acknowledged_task(house: House) -> None:
    acknowledged: dict[str, int] = {}
    port = 0
    for round_number in range(3):
        program, client = await house.api(port=port)
        port = client.base_url.port or 0

        async def submit(number: int, client: httpx.AsyncClient = client, round_number: int = round_number) -> None:
            for count in range(1000):
                key = f"{round_number}-{number}-{count}"
                try:
                    body = {"task_type": "echo", "payload": {"number": count}}
                    answer = await client.post("/tasks", json=body, headers={"Idempotency-Key": key})
                except httpx.TransportError:
                    return
                assert answer.status_code == 201, answer.text
                acknowledged[key] = answer.json()["id"]

        clients = [asyncio.create_task(submit(number)) for number in range(16)]
        wanted = len(acknowledged) + 100
        await until(lambda wanted=wanted: len(acknowledged) > wanted)
        await program.kill()
        await asyncio.gather(*clients)
    _, client = await house.api(port=port)
    assert len(acknowledged) > 300
    for key, task_id in acknowledged.items():
        again = await client.post(
            "/tasks",
            json={"task_type": "echo", "payload": {"number": int(key.rsplit("-", 1)[1])}},
            headers={"Idempotency-Key": key},
        )
        assert (again.status_code, again.json()["id"]) == (200, task_id), key


async def test_a_worker_killed_at_any_moment_loses_no_task(house: House) -> None:
    _, client = await house.api(**QUICK)
    tasks = [{"task_type": "echo", "payload": {"number": number}, "max_attempts": 10} for number in range(4000)]
    answer = await client.post("/tasks/bulk", json={"tasks": tasks})
    ids = answer.json()["ids"]
    killed_midway = 0
    for _ in range(4):
        before = (await client.get("/stats")).json()["completed"]
        if before == len(ids):
            break  # faster than we could kill
        worker = await house.worker(**QUICK)

        async def moved(before: int = before) -> bool:
            return bool((await client.get("/stats")).json()["completed"] > before)

        await until(moved)
        await worker.kill()
        killed_midway += (await client.get("/stats")).json()["completed"] < len(ids)
    assert killed_midway >= 1
    await house.worker(**QUICK)

    async def all_done() -> bool:
        return bool((await client.get("/stats")).json()["completed"] == len(ids))

    await until(all_done, 60)
    for number in range(0, len(ids), 10):
        assert (await client.get(f"/tasks/{ids[number]}/result")).json() == {"number": number}


async def test_a_task_whose_worker_was_killed_runs_again_and_the_death_can_be_seen(house: House) -> None:
    _, client = await house.api(**QUICK)
    worker = await house.worker("--name", "same-name", **QUICK)
    payload = {"folder": str(house.folder), "seconds": 30}
    task_id = (await client.post("/tasks", json={"task_type": "wait_plain", "payload": payload})).json()["id"]
    await until(lambda: (house.folder / f"began-{task_id}-1").exists())
    runners = children_of(worker.pid)
    await worker.kill()
    (house.folder / "go").touch()
    await house.worker("--name", "same-name", **QUICK)
    task = await ended(client, task_id)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    attempts = (await client.get(f"/tasks/{task_id}/attempts")).json()["items"]
    assert [(one["attempt"], one["outcome"]) for one in attempts] == [(1, "lost"), (2, "completed")]
    assert all(one["worker_id"].startswith("same-name-") for one in attempts)
    assert attempts[0]["worker_id"] != attempts[1]["worker_id"]
    await until(lambda: not any(is_alive(pid) for pid in runners))


async def test_a_worker_killed_while_its_runners_start_leaves_none(house: House) -> None:
    for _ in range(3):
        worker = await house.worker(**QUICK)
        runners = children_of(worker.pid)
        await worker.kill()
        await until(lambda runners=runners: not any(is_alive(pid) for pid in runners))


async def test_a_frozen_worker_that_wakes_up_changes_nothing(house: House) -> None:
    _, client = await house.api(**QUICK)
    frozen = await house.worker("--name", "same-name", **QUICK)
    payload = {"folder": str(house.folder), "seconds": 60}
    task_id = (await client.post("/tasks", json={"task_type": "wait_plain", "payload": payload})).json()["id"]
    await until(lambda: (house.folder / f"began-{task_id}-1").exists())
    await freeze(frozen, house)
    everyone = [frozen.pid, *children_of(frozen.pid)]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)

    async def taken_back() -> bool:
        return (await client.get(f"/tasks/{task_id}")).json()["status"] != "running"

    await until(taken_back)
    await house.worker("--name", "same-name", **QUICK)
    await until(lambda: (house.folder / f"began-{task_id}-2").exists())
    before = (await client.get(f"/tasks/{task_id}")).json()
    assert before["status"] == "running"
    for pid in everyone:
        with contextlib.suppress(ProcessLookupError):  # the worker, awake, may have killed the stale runner already
            os.kill(pid, signal.SIGCONT)
    await until(lambda: not any(is_alive(pid) for pid in everyone[1:]), 20)
    after = (await client.get(f"/tasks/{task_id}")).json()
    assert (after["status"], after["worker_id"], after["attempts"]) == ("running", before["worker_id"], 2)
    (house.folder / "go").touch()
    task = await ended(client, task_id)
    assert (task["status"], task["worker_id"]) == ("completed", before["worker_id"])
    attempts = (await client.get(f"/tasks/{task_id}/attempts")).json()["items"]
    assert [one["outcome"] for one in attempts] == ["lost", "completed"]
