"""From curl to result and back, with the programs as an operator starts them."""

import asyncio
import shutil
import signal
import subprocess
import time

import pytest

from tests.conftest import both_stores, straight, until
from tests.walk.conftest import House, children_of, ended, is_alive

__all__ = ["both_stores"]


async def test_a_task_goes_through_api_queue_worker_and_back(house: House) -> None:
    _, client = await house.api()
    await house.worker()
    answer = await client.post("/tasks/", json={"task_type": "text_processing", "payload": {"text": "Hello World"}})
    assert answer.status_code == 201
    task = await ended(client, answer.json()["id"])
    assert task["status"] == "completed"
    assert task["result"]["statistics"]["words"] == 2
    assert (await client.get(f"/tasks/{task['id']}/result")).json() == task["result"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed; the walk above sends the same")
async def test_the_curl_lines_of_the_contract_work_word_for_word(house: House) -> None:
    _, client = await house.api()
    await house.worker()
    port = client.base_url.port

    def curl(*arguments: str) -> str:
        lines = [argument.replace("localhost:8000", f"localhost:{port}") for argument in arguments]
        return subprocess.run(["curl", "-s", *lines], capture_output=True, text=True, check=True).stdout

    created = await asyncio.to_thread(
        curl,
        *("-X", "POST", "http://localhost:8000/tasks/", "-H", "Content-Type: application/json", "-d"),
        '{"task_type": "text_processing", "payload": {"text": "Hello World"}}',
    )
    assert '"id":1' in created
    await ended(client, 1)
    assert '"status":"completed"' in await asyncio.to_thread(curl, "http://localhost:8000/tasks/1")


@straight
async def test_an_idle_worker_starts_a_task_at_once_and_a_long_poll_hears_of_its_end(house: House) -> None:
    _, client = await house.api(POLL_SECONDS="30")
    await house.worker(POLL_SECONDS="30")
    await client.post("/tasks", json={"task_type": "echo"})
    await ended(client, 1)
    began = time.monotonic()
    task_id = (await client.post("/tasks", json={"task_type": "echo"})).json()["id"]
    task = (await client.get(f"/tasks/{task_id}", params={"wait": 20})).json()
    assert task["status"] == "completed"
    assert time.monotonic() - began < 15, "nothing but a wake-up is that early: both sides poll every 30 s"


async def test_several_api_processes_share_the_port_and_the_queue(house: House) -> None:
    program, client = await house.api("--workers", "2")
    await house.worker()
    answers = await asyncio.gather(
        *(client.post("/tasks", json={"task_type": "echo", "payload": {"number": number}}) for number in range(40))
    )
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 40
    for number, task_id in enumerate(ids):
        assert (await ended(client, task_id))["result"] == {"number": number}
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0


async def test_the_api_answers_what_waits_when_it_is_told_to_stop(house: House) -> None:
    program, client = await house.api()
    task_id = (await client.post("/tasks", json={"task_type": "echo"})).json()["id"]
    waiting = asyncio.create_task(client.get(f"/tasks/{task_id}", params={"wait": 50}))
    stream = asyncio.create_task(client.get(f"/tasks/{task_id}/events"))
    async with client.stream("GET", f"/tasks/{task_id}/events") as events:  # once this one speaks, the others are in
        async for line in events.aiter_lines():
            if line.startswith("data:"):
                break
        program.signal(signal.SIGTERM)
        answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert (await stream).status_code == 200
    assert await program.ended() == 0


async def test_a_worker_told_to_stop_finishes_its_task_and_leaves_no_runner(house: House) -> None:
    _, client = await house.api()
    worker = await house.worker()
    payload = {"folder": str(house.folder), "seconds": 20}
    task_id = (await client.post("/tasks", json={"task_type": "wait_plain", "payload": payload})).json()["id"]
    await until(lambda: (house.folder / f"began-{task_id}-1").exists())
    runners = children_of(worker.pid)
    assert runners
    worker.signal(signal.SIGTERM)
    await worker.says("worker stopping")
    (house.folder / "go").touch()
    assert await worker.ended() == 0
    assert (await client.get(f"/tasks/{task_id}")).json()["status"] == "completed"
    assert (await client.get("/workers")).json() == {"items": []}
    assert not any(is_alive(pid) for pid in runners)
