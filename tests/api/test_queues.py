from typing import Any

import httpx
import pytest

from app.api.queues import QueueList, QueueView
from tests.api.conftest import assert_problem, claim, locations, row_count, submit

NO_LIMITS = {"max_running": None, "rate_limit": None, "rate_period_seconds": None, "max_depth": None}


async def read_queue(client: httpx.AsyncClient, name: str = "q") -> dict[str, Any]:
    answer = await client.get(f"/queues/{name}")
    assert answer.status_code == 200, answer.text
    QueueView.model_validate_json(answer.content, extra="forbid")
    found: dict[str, Any] = answer.json()
    return found


async def change(client: httpx.AsyncClient, name: str = "q", **values: Any) -> dict[str, Any]:
    answer = await client.patch(f"/queues/{name}", json=values)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    age = {"oldest_age_seconds": found["oldest_age_seconds"]}
    assert found == await read_queue(client, name) | age
    return found


async def test_a_queue_shows_what_waits_and_how_it_is_steered(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await submit(client, queue="q", concurrency_key="k")
    await change(client, max_running=5)
    found = await read_queue(client)
    age = found.pop("oldest_age_seconds")
    assert 0 <= age < 60
    assert found == {
        "queue": "q",
        "paused": False,
        "ready": 1,
        "blocked": 1,
        "scheduled": 0,
        "retrying": 0,
        "running": 0,
        "drained_per_second": 0.0,
        **NO_LIMITS,
        "max_running": 5,
    }
    listed = (await client.get("/queues")).content
    assert [item.queue for item in QueueList.model_validate_json(listed, extra="forbid").items] == ["q"]


async def test_pause_and_resume(client: httpx.AsyncClient) -> None:
    await submit(client, queue="q")
    for _ in range(2):
        answer = await client.post("/queues/q/pause")
        assert (answer.status_code, answer.json()["paused"]) == (200, True)
    assert list(await claim(client)) == []
    answer = await client.post("/queues/q/resume/")
    assert (answer.status_code, answer.json()["paused"]) == (200, False)
    assert len(await claim(client)) == 1


async def test_a_queue_can_be_paused_before_its_first_task(client: httpx.AsyncClient) -> None:
    assert (await client.post("/queues/new/pause")).json()["paused"] is True
    await submit(client, queue="new")
    assert list(await claim(client)) == []


async def test_what_a_patch_leaves_out_stays_and_null_is_no_limit(client: httpx.AsyncClient) -> None:
    await change(client, max_running=3, max_depth=9)
    found = await change(client, rate_limit=100, rate_period_seconds=60)
    assert {name: found[name] for name in NO_LIMITS} == {
        "max_running": 3,
        "rate_limit": 100,
        "rate_period_seconds": 60,
        "max_depth": 9,
    }
    assert (await change(client, rate_limit=5))["rate_period_seconds"] == 1
    found = await change(client, rate_limit=None, max_running=None, paused=True)
    assert {name: found[name] for name in NO_LIMITS} == NO_LIMITS | {"max_depth": 9}
    assert found["paused"] is True


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ""),
        ({"paused": None}, "body.paused"),
        ({"paused": "yes"}, "body.paused"),
        ({"max_running": 0}, "body.max_running"),
        ({"max_running": 1.5}, "body.max_running"),
        ({"max_running": True}, "body.max_running"),
        ({"max_depth": 10**9}, "body.max_depth"),
        ({"rate_limit": 1, "rate_period_seconds": 0}, "body.rate_period_seconds"),
        ({"rate_period_seconds": 5}, "body.rate_period_seconds"),
        ({"rate_limit": None, "rate_period_seconds": 5}, "body.rate_period_seconds"),
        ({"speed": 5}, "body.speed"),
    ],
)
async def test_a_patch_that_makes_no_sense_changes_nothing(
    client: httpx.AsyncClient, body: dict[str, Any], where: str
) -> None:
    found = assert_problem(await client.patch("/queues/q", json=body), 422, "invalid-request")
    assert locations(found) == {where or "body"}
    assert await row_count(client, "queues") == 0


@pytest.mark.parametrize("name", ["a" * 65, "%20", "a%2Fb", "ü"])
async def test_names_that_no_queue_can_have_are_refused(client: httpx.AsyncClient, name: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/pause"), ("POST", "/resume")):
        answer = await client.request(method, f"/queues/{name}{path}")
        assert answer.status_code in (404, 415, 422)


async def test_an_unknown_queue_is_404(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/queues/nothing"), 404, "not-found")


async def test_a_full_queue_is_429_with_the_time_to_wait(client: httpx.AsyncClient) -> None:
    await change(client, max_depth=1)
    await submit(client, queue="q")
    for path, body in (
        ("/tasks", {"task_type": "echo", "queue": "q"}),
        ("/tasks/bulk", {"tasks": [{"task_type": "echo", "queue": "q"}]}),
    ):
        answer = await client.post(path, json=body)
        found = assert_problem(answer, 429, "queue-full")
        assert answer.headers["retry-after"] == "300"  # nothing was ever drained
        assert (found["queue"], found["max_depth"]) == ("q", 1)
        assert found["detail"] == "Queue q is full: at most 1 may wait in it."
    assert await row_count(client) == 1


async def test_a_retry_for_which_a_full_queue_has_no_room_is_429(client: httpx.AsyncClient) -> None:
    task = await submit(client, queue="q")
    await client.post(f"/tasks/{task['id']}/cancel")
    await change(client, max_depth=1)
    await submit(client, queue="q")
    answer = await client.post(f"/tasks/{task['id']}/retry")
    assert_problem(answer, 429, "queue-full")
    assert answer.headers["retry-after"] == "300"


async def test_a_task_shows_its_concurrency_key(client: httpx.AsyncClient) -> None:
    first = await submit(client, concurrency_key="customer:7")
    second = await submit(client, concurrency_key="customer:7", concurrency_limit=1)
    assert (first["concurrency_key"], first["concurrency_limit"], first["status"]) == ("customer:7", 1, "pending")
    assert (second["concurrency_limit"], second["status"]) == (1, "blocked")
    listed = (await client.get("/tasks", params={"status": "blocked"})).json()["items"]
    assert [task["id"] for task in listed] == [second["id"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrency_limit": 2},
        {"concurrency_key": "", "concurrency_limit": 2},
        {"concurrency_key": "a b"},
        {"concurrency_key": "k", "concurrency_limit": 0},
        {"concurrency_key": "k", "concurrency_limit": 1001},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    assert_problem(await client.post("/tasks", json={"task_type": "echo", **fields}), 422)
    assert await row_count(client) == 0
