from typing import Any

import httpx
import pytest

from app.api.schemas import AttemptList
from app.core.lifecycle import Lost, Released, Snoozed, TimedOut
from tests.api.conftest import WORKER, assert_problem, claim, completed, errored, run, settle, submit


async def attempts(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/tasks/1/attempts")
    assert answer.status_code == 200
    AttemptList.model_validate_json(answer.content, extra="forbid")
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_a_task_that_never_ran_has_no_attempts(client: httpx.AsyncClient) -> None:
    await submit(client)
    assert await attempts(client) == []
    assert (await client.get("/tasks/1/attempts/")).json() == {"items": []}


async def test_the_running_attempt_is_shown_without_an_outcome(client: httpx.AsyncClient) -> None:
    await submit(client)
    await claim(client)
    (one,) = await attempts(client)
    assert (one["attempt"], one["outcome"], one["worker_id"], one["finished_at"]) == (1, None, WORKER, None)


async def test_the_completed_attempt_is_shown(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, completed(1))
    (one,) = await attempts(client)
    assert (one["outcome"], one["error"], one["delay_seconds"]) == ("completed", None, None)
    assert one["started_at"] <= one["finished_at"]


async def test_every_attempt_is_kept_in_order_with_its_error_and_its_wait(client: httpx.AsyncClient) -> None:
    await submit(client, max_attempts=5)
    for outcome in (errored(after_seconds=0), TimedOut(5), Lost("exit code 9"), completed("at last")):
        claimed = await claim(client)
        if not claimed:
            await client.patch("/tasks/1", json={"scheduled_at": None})
            claimed = await claim(client)
        await settle(client, claimed, outcome)
    found = await attempts(client)
    assert [one["outcome"] for one in found] == ["error", "timeout", "lost", "completed"]
    assert [one["attempt"] for one in found] == [1, 2, 3, 4]
    assert [one["error"] and one["error"]["type"] for one in found] == ["ValueError", "TimeLimitExceeded", "Lost", None]
    assert found[0]["delay_seconds"] == 0
    assert all(one["delay_seconds"] >= 0 for one in found[:3])
    assert all(one["worker_id"] == WORKER for one in found)


@pytest.mark.parametrize(("outcome", "word"), [(Released("stop"), "released"), (Snoozed(60), "snoozed")])
async def test_an_attempt_that_was_not_charged_is_history_too(
    client: httpx.AsyncClient, outcome: Any, word: str
) -> None:
    await submit(client)
    await run(client, outcome)
    assert [(one["attempt"], one["outcome"]) for one in await attempts(client)] == [(1, word)]


async def test_the_history_survives_a_retry_by_a_person(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, errored(retryable=False))
    await client.post("/tasks/1/retry")
    await run(client, completed(1))
    assert [(one["attempt"], one["outcome"]) for one in await attempts(client)] == [(1, "error"), (1, "completed")]


@pytest.mark.parametrize("task_id", [2, 0, -1, 2**63])
async def test_attempts_of_an_unknown_task_are_404(client: httpx.AsyncClient, task_id: int) -> None:
    await submit(client)
    assert_problem(await client.get(f"/tasks/{task_id}/attempts"), 404, "not-found")
