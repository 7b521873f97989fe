import asyncio
from typing import Any

import httpx
import pytest

from tests.api.conftest import assert_problem, claim, completed, errored, finished, run, settle, submit
from tests.api.test_wait import waited_for


@pytest.mark.parametrize("value", [{"number": 1}, [], "", "text é", 0, False, None, 1.5, [{"deep": [None]}]])
async def test_the_result_is_what_the_executor_returned(client: httpx.AsyncClient, value: Any) -> None:
    await submit(client)
    await run(client, completed(value))
    for path in ("/tasks/1/result", "/tasks/1/result/"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == value


@pytest.mark.parametrize("state", ["pending", "scheduled", "running", "retrying"])
async def test_not_yet_is_202_and_says_when_to_ask_again(client: httpx.AsyncClient, state: str) -> None:
    await submit(client, delay_seconds=60 if state == "scheduled" else 0)
    if state == "running":
        await claim(client)
    if state == "retrying":
        await run(client, errored(after_seconds=60))
    answer = await client.get("/tasks/1/result")
    assert answer.status_code == 202
    assert answer.json()["status"] == state
    assert 1 <= int(answer.headers["retry-after"]) <= 300


async def test_a_failed_task_has_no_result_but_a_reason(client: httpx.AsyncClient) -> None:
    await finished(client, "failed")
    problem = assert_problem(await client.get("/tasks/1/result"), 409, "no-result")
    assert (problem["task_status"], problem["failure_reason"]) == ("failed", "error")
    assert problem["error"]["message"] == "no good"


async def test_a_cancelled_task_has_no_result(client: httpx.AsyncClient) -> None:
    await finished(client, "cancelled")
    problem = assert_problem(await client.get("/tasks/1/result"), 409, "no-result")
    assert problem["task_status"] == "cancelled"


async def test_the_result_of_an_unknown_task_is_404(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/tasks/1/result"), 404, "not-found")


async def test_a_result_can_be_waited_for(client: httpx.AsyncClient) -> None:
    await submit(client)
    answer = asyncio.create_task(client.get("/tasks/1/result?wait=60"))
    await waited_for(client)
    await settle(client, await claim(client), completed({"number": 9}))
    async with asyncio.timeout(10):
        assert (await answer).json() == {"number": 9}


async def test_a_retried_task_has_no_result_yet(client: httpx.AsyncClient) -> None:
    await finished(client, "failed")
    await client.post("/tasks/1/retry")
    assert (await client.get("/tasks/1/result")).status_code == 202
