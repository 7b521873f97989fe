from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.api import insights
from app.api.insights import QueueList, StatsView, TaskTypeList, TaskTypeView, WorkerList
from app.core.task import JsonText
from tests.api.conftest import assert_problem, claim, completed, errored, run, services_of, submit


async def look(client: httpx.AsyncClient, path: str, model: Any) -> Any:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    model.model_validate_json(answer.content, extra="forbid")
    assert set(answer.json()) == set(model.model_fields)
    return answer.json()


@pytest.mark.parametrize("path", ["/task-types", "/task-types/echo", "/queues", "/workers", "/stats"])
async def test_paths_work_with_and_without_a_slash_at_the_end(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).json() == (await client.get(path + "/")).json()


async def test_task_types_tell_what_they_take(client: httpx.AsyncClient) -> None:
    items = {item["task_type"]: item for item in (await look(client, "/task-types", TaskTypeList))["items"]}
    assert set(items) == set(services_of(client).registry)
    assert list(items) == sorted(items)
    echo = items["echo"]
    assert echo["description"] == "Give the number back."
    assert echo["payload_schema"]["properties"]["number"]["type"] == "integer"
    assert (echo["max_attempts"], echo["timeout_seconds"], echo["shared"]) == (3, 300, False)
    assert echo["example"] == {"number": 1}
    assert items["echo_shared"]["shared"] is True
    assert items["echo_shared"]["example"] is None
    assert (items["spin"]["max_attempts"], items["spin"]["timeout_seconds"]) == (1, 0.3)
    assert echo["retry"] == {
        "base_seconds": 1,
        "ceiling_seconds": 3600,
        "policy": "exponential",
        "jitter": True,
    }, "the settings"
    assert items["raise_error"]["retry"] == {
        "base_seconds": 0.01,
        "ceiling_seconds": 0.02,
        "policy": "exponential",
        "jitter": True,
    }, "its own"


async def test_one_task_type_is_told_like_in_the_list(client: httpx.AsyncClient) -> None:
    for item in (await client.get("/task-types")).json()["items"]:
        assert await look(client, f"/task-types/{item['task_type']}", TaskTypeView) == item


@pytest.mark.parametrize("name", ["nothing", "ECHO", "echo:", "%00", "a" * 300])
async def test_an_unknown_task_type_is_404(client: httpx.AsyncClient, name: str) -> None:
    assert_problem(await client.get(f"/task-types/{name}"), 404, "not-found")


async def test_task_types_are_looked_at_once(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (await client.get("/task-types")).content
    monkeypatch.delattr(insights, "_type_view")
    assert (await client.get("/task-types")).content == first


async def test_every_example_is_taken_as_a_payload(client: httpx.AsyncClient) -> None:
    for item in (await look(client, "/task-types", TaskTypeList))["items"]:
        if item["example"] is not None:
            await submit(client, item["task_type"], payload=item["example"])


async def test_queues_show_what_waits_and_runs(client: httpx.AsyncClient) -> None:
    assert (await look(client, "/queues", QueueList))["items"] == []
    await submit(client, queue="a")
    await run(client, errored(after_seconds=600))
    await submit(client, queue="a")
    await claim(client)
    for _ in range(2):
        await submit(client, queue="a")
    await submit(client, queue="a", delay_seconds=600)
    await submit(client, queue="b", scheduled_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
    a, b = (await look(client, "/queues", QueueList))["items"]
    counts = {name: a[name] for name in ("queue", "ready", "scheduled", "retrying", "running")}
    assert counts == {"queue": "a", "ready": 2, "scheduled": 1, "retrying": 1, "running": 1}
    assert 0 <= a["oldest_age_seconds"] < 60
    assert (b["queue"], b["ready"]) == ("b", 1)
    assert b["oldest_age_seconds"] >= 0


async def test_a_task_that_is_due_counts_as_ready_before_anyone_has_promoted_it(client: httpx.AsyncClient) -> None:
    await submit(client, delay_seconds=600)
    now = datetime.now(UTC) + timedelta(seconds=900)
    services_of(client).insights._clock = lambda: now
    (queue,) = (await look(client, "/queues", QueueList))["items"]
    assert (queue["ready"], queue["scheduled"]) == (1, 0)
    stats = await look(client, "/stats", StatsView)
    assert (stats["ready"], stats["scheduled"]) == (1, 0)


async def test_stats_add_up(client: httpx.AsyncClient) -> None:
    empty = await look(client, "/stats", StatsView)
    assert {value for name, value in empty.items() if name != "oldest_ready_at"} == {0}
    assert empty["oldest_ready_at"] is None
    for outcome in (completed(1), completed(2), errored(retryable=False), errored(after_seconds=600)):
        await submit(client)
        await run(client, outcome)
    await submit(client)
    await claim(client)
    await submit(client)
    await client.post("/tasks/6/cancel")
    await submit(client, delay_seconds=600)
    await submit(client)
    found = await look(client, "/stats", StatsView)
    assert found.pop("oldest_ready_at").endswith("Z")
    assert found == {
        "ready": 1,
        "scheduled": 1,
        "retrying": 1,
        "running": 1,
        "completed": 2,
        "failed": 1,
        "cancelled": 1,
        "completed_last_hour": 2,
        "failed_last_hour": 1,
        "live_workers": 0,
    }


async def test_workers_are_shown_while_they_are_heard_of(client: httpx.AsyncClient) -> None:
    assert (await look(client, "/workers", WorkerList))["items"] == []
    book = services_of(client).workers
    worker = await book.sign_in("mine", ["a", "b"], ["echo"], 4)
    await book.beat(worker, "running", JsonText('[{"id":1,"task_type":"echo"}]'))
    (shown,) = (await look(client, "/workers", WorkerList))["items"]
    assert (shown["id"], shown["name"], shown["queues"], shown["task_types"]) == (
        worker.id,
        "mine",
        ["a", "b"],
        ["echo"],
    )
    assert shown["running"] == [{"id": 1, "task_type": "echo"}]
    assert (await look(client, "/stats", StatsView))["live_workers"] == 1
    later = datetime.now(UTC) + timedelta(minutes=5)
    services_of(client).insights._clock = lambda: later
    assert (await look(client, "/workers", WorkerList))["items"] == []
    await book.sign_out(worker)
    services_of(client).insights._clock = lambda: datetime.now(UTC)
    assert (await look(client, "/workers", WorkerList))["items"] == []
