from typing import Any

import httpx
import pytest

from app.api.autoscale import Autoscale
from tests.api.conftest import assert_problem, claim, completed, run, services_of, submit


async def autoscale(client: httpx.AsyncClient, **parameters: Any) -> Any:
    answer = await client.get("/autoscale", params=parameters)
    assert answer.status_code == 200
    Autoscale.model_validate_json(answer.content, extra="forbid")
    return answer.json()


async def test_an_idle_service_wants_nobody_and_says_so_in_numbers(client: httpx.AsyncClient) -> None:
    assert await autoscale(client) == {"workers": 0, "slots": 0, "queues": {}}
    empty = {"ready": 0, "running": 0, "oldest_age_seconds": 0.0, "completed_per_second": 0.0, "mean_seconds": None}
    assert await autoscale(client, queue="nobody.uses-it") == {
        "workers": 0,
        "slots": 0,
        "queues": {"nobody.uses-it": {"workers": 0, "slots": 0, **empty}},
    }


async def test_what_waits_and_runs_asks_for_workers_queue_by_queue(client: httpx.AsyncClient) -> None:
    tasks = [
        {"task_type": "echo", "payload": {"number": 1}, "queue": "a" if number < 90 else "b"} for number in range(93)
    ]
    await client.post("/tasks/bulk", json={"tasks": tasks})
    found = await autoscale(client, slots_per_worker=2)
    assert {name: one["slots"] for name, one in found["queues"].items()} == {"a": 3, "b": 1}
    assert {name: one["workers"] for name, one in found["queues"].items()} == {"a": 2, "b": 1}
    assert (found["slots"], found["workers"]) == (4, 2)
    only = await autoscale(client, slots_per_worker=2, queue="b")
    assert (only["workers"], list(only["queues"])) == (1, ["b"])
    soon = await autoscale(client, slots_per_worker=1, drain_seconds=1, queue="a")
    assert soon["workers"] == 90
    await claim(client, 5)
    assert sum(one["running"] for one in (await autoscale(client))["queues"].values()) == 5


async def test_tasks_that_completed_lately_tell_how_fast_it_goes(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await submit(client, payload={"number": 1})
    await run(client, completed({"number": 1}))
    (queue,) = (await autoscale(client))["queues"].values()
    assert queue["completed_per_second"] == pytest.approx(3 / 60)
    assert queue["mean_seconds"] is not None
    assert queue["slots"] == 0


async def test_a_paused_queue_asks_for_nobody(client: httpx.AsyncClient) -> None:
    await submit(client, payload={"number": 1}, queue="held")
    async with services_of(client).database.write() as connection:
        await connection.exec_driver_sql("INSERT INTO queues (name, paused) VALUES ('held', 1)")
    assert (await autoscale(client, queue="held"))["workers"] == 0


@pytest.mark.parametrize(
    "query",
    ["slots_per_worker=0", "slots_per_worker=x", "drain_seconds=0", "drain_seconds=nan", "queue=a%20b", "queues=a"],
)
async def test_parameters_that_make_no_sense_are_refused(client: httpx.AsyncClient, query: str) -> None:
    assert_problem(await client.get(f"/autoscale?{query}"), 422)
