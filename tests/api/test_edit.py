from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.conftest import assert_problem, claim, errored, finished, read, run, submit


def at(**forward: float) -> str:
    return (datetime.now(UTC) + timedelta(**forward)).isoformat(timespec="milliseconds")


async def edit(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.patch("/tasks/1", json=fields)
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json()
    assert task == await read(client, 1)
    return task


@pytest.mark.parametrize("path", ["/tasks/1", "/tasks/1/"])
async def test_what_is_given_changes_and_the_rest_stays(client: httpx.AsyncClient, path: str) -> None:
    before = await submit(client, priority=5, tags=["a"], metadata={"k": 1}, max_attempts=4, payload={"number": 1})
    for fields in (
        {"priority": "high"},
        {"priority": -3},
        {"max_attempts": 9},
        {"tags": ["b", "c"]},
        {"tags": []},
        {"metadata": {"other": [1]}},
        {"metadata": None},
        {"priority": 1, "tags": ["x"], "metadata": {}},
        {},
    ):
        answer = await client.patch(path, json=fields)
        assert answer.status_code == 200, answer.text
        expected = before | fields | ({"priority": 50} if fields.get("priority") == "high" else {})
        assert answer.json() == expected == await read(client, 1)
        before = expected


async def test_a_changed_priority_changes_the_order_of_work(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await submit(client)
    await client.patch("/tasks/3", json={"priority": "critical"})
    await client.patch("/tasks/1", json={"priority": "low"})
    assert [task.id for task in await claim(client)] == [3, 2, 1]


async def test_a_priority_that_goes_back_puts_the_task_back_in_its_place(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await submit(client)
    for priority in ("critical", "normal"):
        await client.patch("/tasks/3", json={"priority": priority})
    assert [task.id for task in await claim(client)] == [1, 2, 3]


async def test_a_new_moment_delays_and_null_makes_ready(client: httpx.AsyncClient) -> None:
    await submit(client)
    moment = at(hours=1)
    task = await edit(client, scheduled_at=moment)
    assert task["status"] == "scheduled"
    assert datetime.fromisoformat(task["scheduled_at"]) == datetime.fromisoformat(moment)
    assert not await claim(client)
    assert (await edit(client, scheduled_at=None))["status"] == "pending"
    assert [claimed.id for claimed in await claim(client)] == [1]


async def test_a_past_moment_makes_ready(client: httpx.AsyncClient) -> None:
    await submit(client, delay_seconds=600)
    assert (await edit(client, scheduled_at=at(hours=-1)))["status"] == "pending"


async def test_a_task_that_waits_for_its_next_attempt_can_be_changed(client: httpx.AsyncClient) -> None:
    await submit(client)
    await run(client, errored(after_seconds=600))
    assert (await edit(client, tags=["x"]))["status"] == "retrying"
    assert (await edit(client, scheduled_at=at(hours=2)))["status"] == "retrying"
    problem = assert_problem(await client.patch("/tasks/1", json={"max_attempts": 1}), 422)
    assert "1 attempts" in problem["detail"]
    assert (await read(client, 1))["max_attempts"] == 3
    assert (await edit(client, scheduled_at=None))["status"] == "pending"
    assert [claimed.attempt for claimed in await claim(client)] == [2]


async def test_a_start_after_the_expiry_is_refused(client: httpx.AsyncClient) -> None:
    """A submission may not ask for it either: such a task could never start."""
    await submit(client, expires_at=at(hours=1))
    before = await read(client, 1)
    assert_problem(await client.patch("/tasks/1", json={"scheduled_at": at(hours=2)}), 422)
    assert await read(client, 1) == before


@pytest.mark.parametrize("status", ["running", "completed", "failed", "cancelled"])
async def test_a_task_that_does_not_wait_is_409_and_stays_as_it_is(client: httpx.AsyncClient, status: str) -> None:
    if status == "running":
        await submit(client)
        await claim(client)
    else:
        await finished(client, status)
    before = await read(client, 1)
    problem = assert_problem(await client.patch("/tasks/1", json={"priority": 9}), 409, "conflict")
    assert problem["task_status"] == status
    assert await read(client, 1) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 101},
        {"priority": None},
        {"priority": True},
        {"priority": "5"},
        {"priority": 1.0},
        {"max_attempts": 0},
        {"max_attempts": None},
        {"max_attempts": 1001},
        {"tags": ["a", "a b"]},
        {"tags": None},
        {"tags": ["t"] * 21},
        {"metadata": []},
        {"metadata": {"x": "y" * 16384}},
        {"scheduled_at": "soon"},
        {"scheduled_at": "2030-01-01T00:00:00"},
        {"scheduled_at": 5},
        {"queue": "other"},
        {"payload": {}},
        {"status": "completed"},
        {"id": 2},
        {"priority": 1, "nonsense": 1},
    ],
    ids=str,
)
async def test_a_wrong_change_is_refused_and_changes_nothing(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    before = await submit(client)
    assert_problem(await client.patch("/tasks/1", json=fields), 422)
    assert await read(client, 1) == before


async def test_tags_must_not_repeat_here_either(client: httpx.AsyncClient) -> None:
    await submit(client)
    assert_problem(await client.patch("/tasks/1", json={"tags": ["a", "a"]}), 422)


async def test_an_unknown_task_is_404(client: httpx.AsyncClient) -> None:
    for task_id in (1, 0, -1, 2**63, 10**40):
        assert_problem(await client.patch(f"/tasks/{task_id}", json={}), 404)
