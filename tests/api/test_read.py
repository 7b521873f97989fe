import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from app.api.schemas import TaskSummary, TaskView
from app.core.lifecycle import Cancelled, Lost, Released, Snoozed, TimedOut
from app.core.task import JsonText
from tests.api.conftest import (
    assert_problem,
    claim,
    completed,
    count_lookups,
    errored,
    read,
    run,
    services_of,
    settle,
    submit,
)


@pytest.mark.parametrize("path", ["/tasks/1", "/tasks/1/"])
async def test_a_task_is_shown_whole(client: httpx.AsyncClient, path: str) -> None:
    task = await submit(client, payload={"number": 3}, tags=["x"], metadata={"a": 1})
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == task


async def _pending(client: httpx.AsyncClient) -> None:
    await submit(client)


async def _scheduled(client: httpx.AsyncClient) -> None:
    await submit(client, delay_seconds=60)


async def _running(client: httpx.AsyncClient) -> None:
    await submit(client)
    (task,) = await claim(client)
    progress = {"percent": 40.0, "message": "so far", "data": [1], "updated_at": "2030-01-01T00:00:00Z"}
    await services_of(client).queue.save_progress([(task.id, task.lease, JsonText(orjson.dumps(progress).decode()))])


async def _stopping(client: httpx.AsyncClient) -> None:
    await _running(client)
    await client.post("/tasks/1/cancel")


async def _retrying(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, errored(after_seconds=60))


async def _snoozed(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, Snoozed(60))


async def _released(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, Released("the worker stops"))


async def _completed(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, completed({"number": [1, None, "é"]}))


async def _completed_with_nothing(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, completed(None))


async def _failed(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, errored(retryable=False))


async def _exhausted(client: httpx.AsyncClient) -> None:
    await submit(client, max_attempts=1)
    await run(client, errored())


async def _timed_out(client: httpx.AsyncClient) -> None:
    await submit(client, max_attempts=1)
    await run(client, TimedOut(5))


async def _lost(client: httpx.AsyncClient) -> None:
    await submit(client, max_attempts=1)
    await run(client, Lost("exit code 9"))


async def _expired(client: httpx.AsyncClient) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    await submit(client, expires_at=(later - timedelta(hours=1)).isoformat())
    chores = services_of(client).chores
    chores._clock = lambda: later
    await chores.expire()


async def _cancelled(client: httpx.AsyncClient) -> None:
    await submit(client)
    await client.post("/tasks/1/cancel")


async def _cancelled_while_running(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, Cancelled())


STATES: dict[str, tuple[Any, dict[str, Any]]] = {
    "pending": (_pending, {"status": "pending", "result": None, "worker_id": None}),
    "scheduled": (_scheduled, {"status": "scheduled", "started_at": None}),
    "running": (_running, {"status": "running", "worker_id": "worker-1", "attempts": 1, "finished_at": None}),
    "stopping": (_stopping, {"status": "running", "finished_at": None}),
    "retrying": (_retrying, {"status": "retrying", "attempts": 1, "failure_reason": None}),
    "snoozed": (_snoozed, {"status": "scheduled", "attempts": 0, "error": None}),
    "released": (_released, {"status": "pending", "attempts": 0, "error": None}),
    "completed": (_completed, {"status": "completed", "result": {"number": [1, None, "é"]}, "error": None}),
    "completed with nothing": (_completed_with_nothing, {"status": "completed", "result": None}),
    "failed": (_failed, {"status": "failed", "failure_reason": "error", "attempts": 1, "result": None}),
    "exhausted": (_exhausted, {"status": "failed", "failure_reason": "exhausted"}),
    "timed out": (_timed_out, {"status": "failed", "failure_reason": "timeout"}),
    "lost": (_lost, {"status": "failed", "failure_reason": "lost"}),
    "expired": (_expired, {"status": "failed", "failure_reason": "expired", "attempts": 0, "started_at": None}),
    "cancelled": (_cancelled, {"status": "cancelled", "failure_reason": None, "result": None}),
    "cancelled while running": (_cancelled_while_running, {"status": "cancelled", "attempts": 1}),
}


@pytest.mark.parametrize("state", STATES)
async def test_a_task_in_every_state_is_what_its_model_says(client: httpx.AsyncClient, state: str) -> None:
    arrive, expected = STATES[state]
    await arrive(client)
    answer = await client.get("/tasks/1")
    task = answer.json()
    assert list(task) == [name for name in TaskView.model_fields if name != "tenant"], "it belongs to nobody"
    view = TaskView.model_validate_json(answer.content, extra="forbid")
    assert view.id == 1
    assert {name: task[name] for name in expected} == expected
    assert (task["finished_at"] is not None) == (task["status"] in ("completed", "failed", "cancelled"))
    for name in ("created_at", "scheduled_at", "started_at", "finished_at", "cancel_requested_at"):
        assert task[name] is None or task[name].endswith("Z")
    (item,) = (await client.get("/tasks")).json()["items"]
    assert list(item) == [name for name in TaskSummary.model_fields if name != "tenant"]
    assert item == {name: value for name, value in task.items() if name in TaskSummary.model_fields}


async def test_an_error_says_which_attempt_raised_what(client: httpx.AsyncClient) -> None:
    await _retrying(client)
    error = (await read(client, 1))["error"]
    assert (error["type"], error["message"], error["attempt"]) == ("ValueError", "no good", 1)
    assert error["traceback"] == "Traceback ..."
    assert error["at"].endswith("Z")


async def test_progress_is_shown_while_the_task_runs(client: httpx.AsyncClient) -> None:
    await _running(client)
    progress = (await read(client, 1))["progress"]
    assert (progress["percent"], progress["message"], progress["data"]) == (40.0, "so far", [1])


@pytest.mark.parametrize(
    "path", ["/tasks/2", "/tasks/0", "/tasks/-1", f"/tasks/{2**63 - 1}", f"/tasks/{2**63}", f"/tasks/{10**30}"]
)
async def test_an_unknown_id_is_404(client: httpx.AsyncClient, path: str) -> None:
    await submit(client)
    assert_problem(await client.get(path), 404, "not-found")


async def test_the_etag_stays_while_nothing_changes(client: httpx.AsyncClient) -> None:
    await submit(client)
    first = await client.get("/tasks/1")
    tag = first.headers["etag"]
    assert tag.startswith('"')
    for sent in (tag, f"W/{tag}", f'"other", {tag}', f'"a","b" , W/{tag}', "*"):
        answer = await client.get("/tasks/1", headers={"If-None-Match": sent})
        assert answer.status_code == 304, sent
        assert answer.content == b""
        assert answer.headers["etag"] == tag
    for sent in ('"other"', tag.strip('"'), "", '"', ","):
        answer = await client.get("/tasks/1", headers={"If-None-Match": sent})
        assert answer.status_code == 200, sent
        assert answer.content == first.content


@pytest.mark.parametrize("change", ["claim", "edit", "cancel", "progress"])
async def test_the_etag_changes_with_the_task(client: httpx.AsyncClient, change: str) -> None:
    await submit(client)
    tag = (await client.get("/tasks/1")).headers["etag"]
    match change:
        case "claim":
            await claim(client)
        case "edit":
            await client.patch("/tasks/1", json={"tags": ["new"]})
        case "cancel":
            await client.post("/tasks/1/cancel")
        case "progress":
            (task,) = await claim(client)
            tag = (await client.get("/tasks/1")).headers["etag"]
            text = '{"percent":1.0,"message":null,"data":null,"updated_at":"2030-01-01T00:00:00Z"}'
            await services_of(client).queue.save_progress([(task.id, task.lease, JsonText(text))])
    answer = await client.get("/tasks/1", headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag


async def test_many_readers_at_once_each_get_their_own_task(client: httpx.AsyncClient) -> None:
    for number in range(30):
        await submit(client, payload={"number": number})
    statements = count_lookups(client)
    ids = [n % 32 + 1 for n in range(300)]
    answers = await asyncio.gather(*(client.get(f"/tasks/{task_id}") for task_id in ids))
    for task_id, answer in zip(ids, answers, strict=True):
        if task_id > 30:
            assert_problem(answer, 404)
        else:
            assert answer.json()["id"] == task_id
            assert answer.json()["payload"] == {"number": task_id - 1}
    assert len(statements) < 100, "reads that arrive together share a statement"


async def test_a_late_settle_of_an_old_lease_is_never_seen(client: httpx.AsyncClient) -> None:
    await submit(client)
    old = await claim(client)
    await settle(client, old, Released("the worker stops"))
    new = await claim(client)
    await settle(client, old, completed("old"))
    assert (await read(client, 1))["status"] == "running"
    await settle(client, new, completed("new"))
    assert (await read(client, 1))["result"] == "new"
