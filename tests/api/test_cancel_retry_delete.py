import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.core.lifecycle import Cancelled
from tests.api.conftest import (
    assert_problem,
    claim,
    completed,
    errored,
    finished,
    read,
    row_count,
    run,
    settle,
    submit,
)


async def post(client: httpx.AsyncClient, verb: str, task_id: int = 1) -> dict[str, Any]:
    answer = await client.post(f"/tasks/{task_id}/{verb}")
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json()
    assert task == await read(client, task_id)
    return task


@pytest.mark.parametrize("state", ["pending", "scheduled", "retrying"])
async def test_a_waiting_task_is_cancelled_at_once(client: httpx.AsyncClient, state: str) -> None:
    await submit(client, delay_seconds=600 if state == "scheduled" else 0)
    if state == "retrying":
        await run(client, errored(after_seconds=600))
    assert (await read(client, 1))["status"] == state
    task = await post(client, "cancel")
    assert task["status"] == "cancelled"
    assert task["finished_at"] is not None
    assert not await claim(client)


async def test_paths_work_with_a_slash_at_the_end(client: httpx.AsyncClient) -> None:
    await submit(client)
    assert (await client.post("/tasks/1/cancel/")).json()["status"] == "cancelled"
    assert (await client.post("/tasks/1/retry/")).json()["status"] == "pending"
    assert (await client.delete("/tasks/1/")).status_code == 204


async def test_a_running_task_is_asked_to_stop(client: httpx.AsyncClient) -> None:
    await submit(client)
    claimed = await claim(client)
    task = await post(client, "cancel")
    assert task["status"] == "running"
    assert task["cancel_requested_at"] is not None
    assert await post(client, "cancel") == task
    await settle(client, claimed, Cancelled())
    assert (await read(client, 1))["status"] == "cancelled"


async def test_completion_wins_over_a_cancel_request(client: httpx.AsyncClient) -> None:
    await submit(client)
    claimed = await claim(client)
    await post(client, "cancel")
    await settle(client, claimed, completed("in time"))
    task = await read(client, 1)
    assert (task["status"], task["result"]) == ("completed", "in time")


async def test_an_error_after_a_cancel_request_is_a_cancel(client: httpx.AsyncClient) -> None:
    await submit(client)
    claimed = await claim(client)
    await post(client, "cancel")
    await settle(client, claimed, errored())
    assert (await read(client, 1))["status"] == "cancelled"


async def test_cancelling_twice_changes_nothing(client: httpx.AsyncClient) -> None:
    await submit(client)
    assert await post(client, "cancel") == await post(client, "cancel")


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_what_has_ended_otherwise_cannot_be_cancelled(client: httpx.AsyncClient, status: str) -> None:
    before = await finished(client, status)
    problem = assert_problem(await client.post("/tasks/1/cancel"), 409, "conflict")
    assert problem["task_status"] == status
    assert await read(client, 1) == before


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_retry_makes_a_fresh_start(client: httpx.AsyncClient, status: str) -> None:
    await finished(client, status)
    task = await post(client, "retry")
    assert task["status"] == "pending"
    assert task["attempts"] == 0
    for name in ("scheduled_at", "finished_at", "failure_reason", "cancel_requested_at", "progress", "result"):
        assert task[name] is None, name
    (claimed,) = await claim(client)
    assert claimed.attempt == 1
    assert claimed.lease == (2 if status == "failed" else 1), "a lease is never used twice"
    await settle(client, [claimed], completed("second time"))
    assert (await read(client, 1))["status"] == "completed"


async def test_a_retried_task_that_was_scheduled_runs_now_and_does_not_expire(client: httpx.AsyncClient) -> None:
    expires_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await submit(client, delay_seconds=600, expires_at=expires_at)
    await post(client, "cancel")
    assert (await post(client, "retry"))["expires_at"] is None
    assert [task.id for task in await claim(client)] == [1]


@pytest.mark.parametrize("state", ["pending", "scheduled", "running", "retrying", "completed"])
async def test_only_failed_and_cancelled_tasks_can_be_retried(client: httpx.AsyncClient, state: str) -> None:
    await submit(client, delay_seconds=600 if state == "scheduled" else 0)
    match state:
        case "running":
            await claim(client)
        case "retrying":
            await run(client, errored(after_seconds=600))
        case "completed":
            await run(client, completed(1))
    before = await read(client, 1)
    problem = assert_problem(await client.post("/tasks/1/retry"), 409, "conflict")
    assert problem["task_status"] == state
    assert await read(client, 1) == before


async def test_a_retry_whose_unique_key_another_task_holds_is_409(client: httpx.AsyncClient) -> None:
    await finished(client, "failed", unique_key="u")
    holder = await submit(client, unique_key="u")
    before = await read(client, 1)
    problem = assert_problem(await client.post("/tasks/1/retry"), 409, "unique-key-taken")
    assert problem["holder_id"] == holder["id"]
    assert await read(client, 1) == before
    await run(client, completed(1))
    assert (await post(client, "retry"))["status"] == "pending"


async def test_of_many_retries_at_once_one_wins(client: httpx.AsyncClient) -> None:
    await finished(client, "failed")
    answers = await asyncio.gather(*(client.post("/tasks/1/retry") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19


@pytest.mark.parametrize("state", ["pending", "scheduled", "retrying", "completed", "failed", "cancelled"])
async def test_a_task_that_does_not_run_is_deleted_with_its_history(client: httpx.AsyncClient, state: str) -> None:
    await submit(client, delay_seconds=600 if state == "scheduled" else 0)
    match state:
        case "retrying":
            await run(client, errored(after_seconds=600))
        case "completed":
            await run(client, completed(1))
        case "failed":
            await run(client, errored(retryable=False))
        case "cancelled":
            await post(client, "cancel")
    answer = await client.delete("/tasks/1")
    assert answer.status_code == 204
    assert answer.content == b""
    assert await row_count(client) == 0
    assert await row_count(client, "task_attempts") == 0
    for path in ("/tasks/1", "/tasks/1/result", "/tasks/1/attempts", "/tasks/1/events"):
        assert_problem(await client.get(path), 404)
    assert_problem(await client.delete("/tasks/1"), 404)


async def test_a_running_task_is_not_deleted(client: httpx.AsyncClient) -> None:
    await submit(client)
    await claim(client)
    problem = assert_problem(await client.delete("/tasks/1"), 409, "conflict")
    assert problem["task_status"] == "running"
    assert await row_count(client) == 1


async def test_children_stay_when_their_parent_is_deleted(client: httpx.AsyncClient) -> None:
    await submit(client)
    await submit(client, parent_id=1)
    assert (await client.delete("/tasks/1")).status_code == 204
    assert (await read(client, 2))["parent_id"] is None


async def test_the_id_of_a_deleted_task_is_not_used_again(client: httpx.AsyncClient) -> None:
    await submit(client)
    await client.delete("/tasks/1")
    assert (await submit(client))["id"] == 2


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("task_id", [2, 0, -1, 2**63, 10**30])
async def test_an_unknown_task_is_404(client: httpx.AsyncClient, verb: str, task_id: int) -> None:
    await submit(client)
    assert_problem(await client.post(f"/tasks/{task_id}/{verb}"), 404, "not-found")
    assert_problem(await client.delete(f"/tasks/{task_id}"), 404, "not-found")
