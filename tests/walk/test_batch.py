"""Batches in the real service, with real kills: no item whose result was stored is done twice, and none is missing."""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.models.database import Database
from app.models.queue import checkpoints_of
from tests.conftest import SAMPLES, STORES, until
from tests.walk.conftest import House, children_of, ended, is_alive

pytestmark = pytest.mark.parametrize("store", STORES)

QUICK = {
    "LEASE_SECONDS": "1.5",
    "SWEEP_SECONDS": "0.3",
    "RETRY_BASE_SECONDS": "0.05",
    "STOP_GRACE_SECONDS": "1",
    # Whether it is among those that are shipped or not.
    "EXECUTOR_MODULES": f"{SAMPLES},tests.batch_executors,app.workers.executors.batch_processing",
}


class Journal:
    """The file to which each run of an item appends its name, the pid and more."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"

    def deed(self, do: str, name: int, **more: Any) -> dict[str, Any]:
        return {"do": do, "name": name, "journal": str(self.path), **more}

    def runs(self) -> Counter[int]:
        return Counter(int(line.split()[0]) for line in self._lines())

    def pids(self) -> set[int]:
        return {int(line.split()[1]) for line in self._lines()}

    def _lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


async def submit(client: httpx.AsyncClient, **fields: Any) -> int:
    answer = await client.post("/tasks", json={"task_type": "batch_processing", **fields})
    assert answer.status_code == 201, answer.text
    task_id: int = answer.json()["id"]
    return task_id


async def upload(client: httpx.AsyncClient, lines: list[Any]) -> str:
    data = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    answer = await client.post("/files", files={"file": ("items.jsonl", data, "application/jsonl")})
    assert answer.status_code == 201, answer.text
    file_id: str = answer.json()["id"]
    return file_id


async def stored_items(house: House, client: httpx.AsyncClient, task_id: int) -> set[int]:
    """The indexes of the items whose results the database has."""
    database = Database(house.database_url)
    await database.open()
    try:
        async with database.read() as connection:
            texts = await checkpoints_of(connection, [task_id])
    finally:
        await database.close()
    found: set[int] = set()
    for text in texts.get(task_id, []):
        data = json.loads(text)
        lines = data.get("results") or (await client.get(f"/files/{data['results_file_id']}")).text
        found |= {json.loads(line)["index"] for line in lines.splitlines()}
    return found


async def until_stored(house: House, client: httpx.AsyncClient, task_id: int) -> set[int]:
    """Wait until the database has the results of many items; their indexes."""

    async def look() -> set[int] | None:
        stored = await stored_items(house, client, task_id)
        return stored if len(stored) > 100 else None

    found: set[int] = await until(look)
    return found


def batch_runner(worker_pid: int) -> int:
    """The runner whose children run items."""
    return next(runner for runner in children_of(worker_pid) if children_of(runner))


def slow_in_the_middle(journal: Journal, marker: Path, number: int) -> list[Any]:
    """Items that take a moment each; the one in the middle waits for the marker, so that the batch cannot end before."""
    return [
        (
            journal.deed("wait_for_marker", name, marker=str(marker))
            if name == number // 2
            else journal.deed("sleep", name, seconds=0.003)
        )
        for name in range(number)
    ]


async def assert_whole(client: httpx.AsyncClient, task: dict[str, Any], number: int) -> None:
    assert (task["status"], task["result"]["total"], task["result"]["completed"]) == ("completed", number, number), task
    expected = [{"index": name, "status": "completed", "result": name} for name in range(number)]
    assert task["result"]["items"] == expected


async def test_a_worker_killed_in_the_middle_of_a_batch_costs_no_stored_result(house: House) -> None:
    _, client = await house.api(**QUICK)
    worker = await house.worker(**QUICK)
    journal, marker = Journal(house.folder), house.folder / "marker"
    file_id = await upload(client, slow_in_the_middle(journal, marker, 600))
    task_id = await submit(client, payload={"items_file_id": file_id, "task_type": "deed", "concurrency": 2})
    await until_stored(house, client, task_id)
    await worker.kill()
    await until(lambda: not any(is_alive(pid) for pid in journal.pids()))
    stored, before = await stored_items(house, client, task_id), journal.runs()
    assert 300 not in stored
    marker.touch()
    await house.worker("--name", "second", **QUICK)
    task = await ended(client, task_id)
    await assert_whole(client, task, 600)
    assert task["attempts"] == 2
    again = journal.runs() - before
    assert set(again) == set(range(600)) - stored
    assert set(again.values()) == {1}
    assert {journal.runs()[name] for name in stored} == {1}


async def test_a_batchs_runner_killed_in_the_middle_costs_no_stored_result(house: House) -> None:
    _, client = await house.api(**QUICK)
    worker = await house.worker(**QUICK)
    journal, marker = Journal(house.folder), house.folder / "marker"
    payload = {"items": slow_in_the_middle(journal, marker, 600), "task_type": "deed", "concurrency": 2}
    task_id = await submit(client, payload=payload)
    stored = await until_stored(house, client, task_id)
    first_pids = journal.pids()
    os.kill(batch_runner(worker.pid), signal.SIGKILL)
    marker.touch()
    task = await ended(client, task_id)
    await assert_whole(client, task, 600)
    attempts = (await client.get(f"/tasks/{task_id}/attempts")).json()["items"]
    assert [one["outcome"] for one in attempts] == ["lost", "completed"]
    assert {journal.runs()[name] for name in stored} == {1}
    assert sum(journal.runs().values()) > 600  # the one that waited ran again
    await until(lambda: not any(is_alive(pid) for pid in first_pids | journal.pids()))


async def test_a_worker_that_is_stopped_hands_its_batch_on(house: House) -> None:
    _, client = await house.api(**QUICK)
    worker = await house.worker(SHUTDOWN_GRACE_SECONDS="0.2", **QUICK)
    journal, marker = Journal(house.folder), house.folder / "marker"
    items = slow_in_the_middle(journal, marker, 600)
    task_id = await submit(client, payload={"items": items, "task_type": "deed", "concurrency": 2})
    await until_stored(house, client, task_id)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    stored = await stored_items(house, client, task_id)
    marker.touch()
    await house.worker("--name", "second", **QUICK)
    task = await ended(client, task_id)
    await assert_whole(client, task, 600)
    assert task["attempts"] == 1
    assert {journal.runs()[name] for name in stored} == {1}


async def test_a_cancelled_batch_ends_its_children(house: House) -> None:
    _, client = await house.api(**QUICK)
    await house.worker(**QUICK)
    journal = Journal(house.folder)
    items = [journal.deed("sleep", name, seconds=60) for name in range(4)]
    task_id = await submit(client, payload={"items": items, "task_type": "deed", "concurrency": 2})
    await until(lambda: len(journal.runs()) == 2)
    assert (await client.post(f"/tasks/{task_id}/cancel")).status_code == 200
    assert (await ended(client, task_id))["status"] == "cancelled"
    await until(lambda: not any(is_alive(pid) for pid in journal.pids()))
    assert set(journal.runs()) == {0, 1}


async def test_many_results_come_in_a_file_and_temporary_ones_go(house: House) -> None:
    _, client = await house.api(**QUICK)
    await house.worker(**QUICK)
    journal = Journal(house.folder)
    file_id = await upload(client, [journal.deed("large", name) for name in range(300)])
    task_id = await submit(client, payload={"items_file_id": file_id, "task_type": "deed"})
    task = await ended(client, task_id)
    assert task["status"] == "completed", task
    assert task["progress"]["message"] == "300 of 300"
    lines = (await client.get(f"/files/{task['result']['results_file_id']}")).text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(300))
    files = (await client.get(f"/tasks/{task_id}/files")).json()["items"]
    kept = [one for one in files if one["expires_at"] is None]  # the others may be there until they are collected
    assert [(one["id"], one["role"]) for one in kept] == [
        (file_id, "input"),
        (task["result"]["results_file_id"], "output"),
    ]


async def test_a_batch_of_nonsense_is_refused_at_the_door(house: House) -> None:
    _, client = await house.api(**QUICK)
    for payload, where in (
        ({"items": ["a", {"text": 3}]}, ["body", "payload", "items", 1, "text"]),
        ({"items": ["a"], "task_type": "batch_processing"}, ["body", "payload", "task_type"]),
        ({"items": ["a"], "task_type": "nope"}, ["body", "payload", "task_type"]),
    ):
        answer = await client.post("/tasks", json={"task_type": "batch_processing", "payload": payload})
        assert (answer.status_code, answer.json()["errors"][0]["location"]) == (422, where)
