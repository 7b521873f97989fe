from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.api import insights
from app.api.diagnosis import DiagnosisView
from app.api.insights import StatsView, TaskTypeList, TaskTypeView, WorkerList
from app.api.queues import QueueList
from app.core.task import JsonText, Status
from app.services import insights as insight_service
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
    assert set(items) == set(services_of(client).registry.offered)
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
    services_of(client).insights._clock = services_of(client).limits._clock = lambda: now
    (queue,) = (await look(client, "/queues", QueueList))["items"]
    assert (queue["ready"], queue["scheduled"]) == (1, 0)
    stats = await look(client, "/stats", StatsView)
    assert (stats["ready"], stats["scheduled"]) == (1, 0)


async def test_stats_add_up(client: httpx.AsyncClient) -> None:
    empty = await look(client, "/stats", StatsView)
    assert empty.pop("range") is None
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
        "range": None,
    }


async def test_a_worker_is_silent_once_its_beat_is_overdue(client: httpx.AsyncClient) -> None:
    """Whatever it said last; and running again with its next beat."""
    services = services_of(client)
    worker = await services.workers.sign_in("mine", [], ["echo"], 4)
    began = datetime.now(UTC)

    async def state(seconds: float) -> tuple[str, float | None]:
        services.insights._clock = lambda: began + timedelta(seconds=seconds)
        (shown,) = (await look(client, "/workers", WorkerList))["items"]
        return shown["state"], shown["silent_seconds"]

    assert await state(14) == ("running", None)
    assert await state(30) == ("silent", pytest.approx(30, abs=1))
    assert (await services.insights.stats()).live_workers == 1
    services.workers._clock = lambda: began + timedelta(seconds=30)
    await services.workers.beat(worker, "stopping", JsonText("[]"))
    assert await state(31) == ("stopping", None)


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


async def test_the_diagnosis_says_what_is_wrong_and_when(client: httpx.AsyncClient) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await submit(client, queue="mail")
    found = await look(client, "/diagnosis", DiagnosisView)
    assert before < datetime.fromisoformat(found["at"]) < datetime.now(UTC) + timedelta(seconds=1)
    assert found["checked"] == ["sqlite", "disk", "schema", "store", "workers", "failures", "breakers"]
    finding = next(item for item in found["items"] if item["code"] == "no-worker")
    assert finding["severity"] == "critical"
    assert "1 task could start now" in finding["what"]
    assert (await client.get("/diagnosis/")).status_code == 200


async def stats_since(client: httpx.AsyncClient, **params: Any) -> Any:
    await services_of(client).tallies.write()
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    answer = await client.get("/stats", params={"from": since, **params})
    assert answer.status_code == 200, answer.text
    StatsView.model_validate_json(answer.content, extra="forbid")
    return answer.json()["range"]


async def test_a_range_shows_what_happened(client: httpx.AsyncClient) -> None:
    for outcome in (completed(1), errored(retryable=False)):
        await submit(client, queue="a")
        await run(client, outcome)
    await submit(client, "echo_shared", queue="b")
    found = await stats_since(client, by="queue")
    assert found["step_seconds"] == 60
    assert [(one["queue"], one["task_type"]) for one in found["series"]] == [("a", None), ("b", None)]
    a, b = (one["total"] for one in found["series"])
    assert (a["submitted"], a["completed"], a["failed"], b["submitted"]) == (2, 1, 1, 1)
    assert (a["wait_seconds"]["count"], b["wait_seconds"]) == (
        2,
        {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None},
    )
    assert 0 <= a["wait_seconds"]["p50"] <= a["wait_seconds"]["p99"] < 60
    points = found["series"][0]["points"]
    assert sum(point["submitted"] for point in points) == 2
    assert all(point["at"].endswith(":00Z") for point in points)
    only = await stats_since(client, by="queue,task_type", task_type="echo_shared", step=3600)
    assert [(one["queue"], one["task_type"]) for one in only["series"]] == [("b", "echo_shared")]
    (all_of_it,) = (await stats_since(client))["series"]
    assert (all_of_it["queue"], all_of_it["total"]["submitted"]) == (None, 3)


async def test_a_range_in_which_nothing_happened_has_no_series(client: httpx.AsyncClient) -> None:
    assert (await stats_since(client, queue="nothing"))["series"] == []


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"to": "2026-01-01T00:00:00Z"}, "from"),
        ({"step": 60}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-01-01T00:00:00"}, "from"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "from"),
        ({"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-02T00:00:00Z"}, "from"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-20T00:00:00Z", "step": 60}, "step"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z", "step": 59}, "step"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z", "step": 90}, "step"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z", "by": "worker"}, "by"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z", "queue": "a b"}, "queue"),
        ({"since": "2026-01-01T00:00:00Z"}, "since"),
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, params: dict[str, Any], where: str
) -> None:
    found = assert_problem(await client.get("/stats", params=params), 422, "invalid-request")
    assert {fault["location"][1] for fault in found["errors"]} == {where}


async def test_a_count_of_many_is_given_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    moment, finished = 0.0, 0

    async def count(seconds: float) -> dict[Any, int]:
        nonlocal moment, finished
        moment += seconds
        finished += 1
        return {Status.COMPLETED: finished}

    monkeypatch.setattr(insight_service.time, "monotonic", lambda: moment)
    sparing = insight_service._Sparing(count)
    assert [(await sparing(0.5))[Status.COMPLETED] for _ in range(3)] == [1, 2, 3]
    finished = insight_service.MANY
    assert [(await sparing(0.01))[Status.COMPLETED] - finished for _ in range(3)] == [0, 0, 0]
    assert finished == insight_service.MANY + 1
    moment += 2
    assert [(await sparing(0.5))[Status.COMPLETED] for _ in range(2)] == [insight_service.MANY + 2] * 2
    moment += insight_service.LONGEST_SECONDS
    assert (await sparing(0.001))[Status.COMPLETED] == insight_service.MANY + 3
