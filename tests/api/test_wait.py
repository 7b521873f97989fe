"""`?wait=`: the answer comes when the task has ended, or when the time is up, and waiting costs next to nothing."""

import asyncio
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.services.wakeup import CHANGES
from app.services.watcher import TICK_SECONDS
from tests.api.conftest import (
    assert_problem,
    claim,
    completed,
    count_lookups,
    errored,
    run,
    services_of,
    settle,
    submit,
)
from tests.conftest import until


async def waited_for(client: httpx.AsyncClient, count: int = 1) -> None:
    """Return when `count` requests wait."""
    watcher = services_of(client).watcher
    await until(lambda: sum(map(len, watcher._waiters.values())) == count)


async def test_a_wait_ends_as_soon_as_the_task_has_ended(client: httpx.AsyncClient) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    claimed = await claim(client)
    await settle(client, claimed, completed({"number": 1}))
    async with asyncio.timeout(10):
        task = (await answer).json()
    assert (task["status"], task["result"]) == ("completed", {"number": 1})


@pytest.mark.parametrize("end", ["fail", "cancel"])
async def test_a_wait_ends_however_the_task_ends(client: httpx.AsyncClient, end: str) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1/?wait=60"))
    await waited_for(client)
    if end == "fail":
        await run(client, errored(retryable=False))
    else:
        await client.post("/tasks/1/cancel")
    async with asyncio.timeout(10):
        assert (await answer).json()["status"] == {"fail": "failed", "cancel": "cancelled"}[end]


async def test_a_wait_does_not_end_with_a_change_that_is_no_end(client: httpx.AsyncClient) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    claimed = await claim(client)
    statements = count_lookups(client)
    await until(lambda: len(statements) > 2)
    assert not answer.done()
    await settle(client, claimed, errored(after_seconds=60))
    statements.clear()
    await until(lambda: len(statements) > 2)
    assert not answer.done()
    await client.post("/tasks/1/cancel")
    async with asyncio.timeout(10):
        assert (await answer).json()["status"] == "cancelled"


async def test_a_wait_for_a_task_that_is_deleted_ends_with_404(client: httpx.AsyncClient) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    await client.delete("/tasks/1")
    async with asyncio.timeout(10):
        assert_problem(await answer, 404)


async def test_a_wait_ends_when_the_time_is_up(client: httpx.AsyncClient) -> None:
    await submit(client)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await client.get("/tasks/1?wait=0.2")
    assert answer.json()["status"] == "pending"
    assert 0.2 <= loop.time() - began < 10


async def test_a_longer_wait_than_allowed_is_cut(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_wait_seconds": 0.1}))
    await submit(client)
    for wait in ("3600", "1e300", "9" * 300):
        async with asyncio.timeout(10):
            assert (await client.get(f"/tasks/1?wait={wait}")).status_code == 200


async def test_a_task_that_has_ended_is_not_waited_for(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, completed(1))
    async with asyncio.timeout(10):
        assert (await client.get("/tasks/1?wait=60")).json()["status"] == "completed"
        assert_problem(await client.get("/tasks/99?wait=60"), 404)


@pytest.mark.parametrize("path", ["/tasks/1", "/tasks/1/result"])
@pytest.mark.parametrize("wait", ["-1", "-0.001", "nan", "NaN", "inf", "-inf", "Infinity", "", "x", "1s", "%00", "1,5"])
async def test_a_wait_that_is_no_time_is_refused(client: httpx.AsyncClient, path: str, wait: str) -> None:
    await submit(client)
    problem = assert_problem(await client.get(f"{path}?wait={wait}"), 422)
    assert problem["errors"][0]["location"] == ["query", "wait"]


async def test_two_hundred_that_wait_for_a_hundred_tasks_share_few_queries(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tasks/bulk", json={"tasks": [{"task_type": "echo"}] * 100})
    ids = answer.json()["ids"]
    answers = [asyncio.create_task(client.get(f"/tasks/{task_id}?wait=60")) for task_id in ids * 2]
    await waited_for(client, 200)
    statements = count_lookups(client)
    claimed = await claim(client, room=100)
    await settle(client, claimed, completed("done"))
    async with asyncio.timeout(20):
        found = await asyncio.gather(*answers)
    assert {one.json()["status"] for one in found} == {"completed"}
    assert [one.json()["id"] for one in found] == ids * 2
    assert len(statements) < 40, "each look re-reads all that is waited for at once"
    assert not services_of(client).watcher._waiters


async def test_idle_waiters_look_once_a_poll_together(settings: Settings, serve: Any) -> None:
    poll_seconds, looks = 0.05, 6
    client = await serve(settings.model_copy(update={"poll_seconds": poll_seconds}))
    await client.post("/tasks/bulk", json={"tasks": [{"task_type": "echo"}] * 100})
    answers = [asyncio.create_task(client.get(f"/tasks/{task_id}?wait=60")) for task_id in range(1, 101)]
    await waited_for(client, 100)
    statements = count_lookups(client)
    await until(lambda: len(statements) >= looks)
    statements.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(lambda: len(statements) >= looks)
    assert loop.time() - began > poll_seconds * (looks - 2), "one may be due at once"
    services_of(client).watcher.let_go()
    await asyncio.gather(*answers)


async def test_a_storm_of_changes_is_looked_at_once_a_tick(client: httpx.AsyncClient) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    statements = count_lookups(client)
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < 0.2:
        services_of(client).wakeup.notify(CHANGES)
        await asyncio.sleep(0)
    assert len(statements) <= (loop.time() - began) / TICK_SECONDS + 2
    services_of(client).watcher.let_go()
    await answer


async def test_a_change_between_reading_and_waiting_is_not_missed(settings: Settings, serve: Any) -> None:
    """Who joins a watch that goes on already must not wait for the next poll."""
    client = await serve(settings.model_copy(update={"poll_seconds": 60}))
    await submit(client)
    await submit(client)
    other = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    services = services_of(client)
    before = await services.tasks.get(2)
    await client.post("/tasks/2/cancel")
    async with asyncio.timeout(10):
        assert await services.watcher.changed(before, 60)
    services.watcher.let_go()
    await other


async def test_a_change_is_found_although_no_wake_up_ever_comes(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"poll_seconds": 0.05}))
    await submit(client)
    services_of(client).bus._listeners.clear()
    answer = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    await run(client, completed(1))
    async with asyncio.timeout(10):
        assert (await answer).json()["status"] == "completed"


async def test_who_waits_is_let_go_when_the_process_stops(client: httpx.AsyncClient) -> None:
    await submit(client)
    answers = [asyncio.create_task(client.get(path)) for path in ("/tasks/1?wait=60", "/tasks/1/result?wait=60")]
    await waited_for(client, 2)
    services_of(client).watcher.let_go()
    async with asyncio.timeout(10):
        task, result = await asyncio.gather(*answers)
    assert (task.status_code, task.json()["status"], result.status_code) == (200, "pending", 202)
    async with asyncio.timeout(10):
        assert (await client.get("/tasks/1?wait=60")).status_code == 200


async def test_a_waiter_that_goes_away_leaves_nothing_behind(client: httpx.AsyncClient) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1?wait=60"))
    await waited_for(client)
    answer.cancel()
    await asyncio.gather(answer, return_exceptions=True)
    assert not services_of(client).watcher._waiters


async def test_an_unchanged_task_after_a_wait_is_304(client: httpx.AsyncClient) -> None:
    await submit(client)
    tag = (await client.get("/tasks/1")).headers["etag"]
    answer = await client.get("/tasks/1?wait=0.05", headers={"If-None-Match": tag})
    assert answer.status_code == 304
