import asyncio
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from tests.api.conftest import JSON, assert_problem, locations, read, row_count, submit


async def bulk(client: httpx.AsyncClient, *tasks: Any) -> httpx.Response:
    return await client.post("/tasks/bulk", json={"tasks": tasks})


def echo(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"task_type": "echo", "payload": {"number": number}, **fields}


@pytest.mark.parametrize("path", ["/tasks/bulk", "/tasks/bulk/"])
async def test_the_ids_come_in_the_order_of_the_tasks(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"tasks": [echo(n, priority=n % 7, queue=f"q{n % 3}") for n in range(50)]})
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    ids = answer.json()["ids"]
    assert len(set(ids)) == 50
    for number, task_id in enumerate(ids):
        task = await read(client, task_id)
        assert (task["payload"], task["priority"], task["queue"]) == ({"number": number}, number % 7, f"q{number % 3}")


async def test_a_bulk_of_several_statements_is_stored_whole_and_in_order(client: httpx.AsyncClient) -> None:
    answer = await bulk(client, *(echo(n) for n in range(2500)))
    ids = answer.json()["ids"]
    assert len(ids) == 2500
    assert await row_count(client) == 2500
    for place in (0, 999, 1000, 1001, 1999, 2000, 2499):
        assert (await read(client, ids[place]))["payload"] == {"number": place}


BAD_TASKS: dict[str, Any] = {
    "unknown task type": {"task_type": "nonsense"},
    "no task type": {},
    "wrong payload": echo() | {"payload": {"number": "x"}},
    "unknown field": echo(colour=1),
    "wrong priority": echo(priority=101),
    "unknown parent": echo(parent_id=999_999),
    "both moments": echo(delay_seconds=1, scheduled_at="2030-01-01T00:00:00Z"),
    "past expiry": echo(expires_at="2001-01-01T00:00:00Z"),
    "no object": 7,
    "null": None,
}


@pytest.mark.parametrize("fault", BAD_TASKS)
async def test_one_bad_task_refuses_all_and_is_named_by_its_place(client: httpx.AsyncClient, fault: str) -> None:
    tasks = [echo(n) for n in range(6)]
    tasks[4] = BAD_TASKS[fault]
    problem = assert_problem(await bulk(client, *tasks), 422)
    assert all(4 in error["location"] for error in problem["errors"])
    assert problem["errors"]
    assert await row_count(client) == 0


async def test_places_in_a_bulk_are_located_alike_whoever_found_the_fault(client: httpx.AsyncClient) -> None:
    for fault in ("wrong priority", "wrong payload", "unknown task type", "unknown parent", "past expiry"):
        problem = assert_problem(await bulk(client, echo(), BAD_TASKS[fault]), 422)
        assert [error["location"][:3] for error in problem["errors"]] == [["body", "tasks", 1]], fault


async def test_a_fault_far_into_a_bulk_refuses_what_was_already_inserted(client: httpx.AsyncClient) -> None:
    await submit(client, unique_key="taken")
    problem = assert_problem(await bulk(client, *(echo(n) for n in range(1500)), echo(unique_key="taken")), 409)
    assert problem["holder_id"] == 1
    assert await row_count(client) == 1


async def test_a_unique_key_twice_in_one_bulk_refuses_it_all(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await bulk(client, echo(1, unique_key="u"), echo(2, unique_key="u")), 409)
    assert await row_count(client) == 0
    assert "u" in problem["detail"]


async def test_a_holder_that_is_named_exists(client: httpx.AsyncClient) -> None:
    """Of two tasks of one refused bulk neither was stored, so neither can hold the key."""
    answer = await bulk(client, echo(1, unique_key="u"), echo(2, unique_key="u"))
    holder_id = answer.json().get("holder_id")
    assert holder_id is None or (await client.get(f"/tasks/{holder_id}")).status_code == 200


async def test_a_payload_over_its_limit_is_413_and_stores_nothing(client: httpx.AsyncClient) -> None:
    big = {"task_type": "text_processing", "payload": {"text": "x" * 262145}}
    assert_problem(await bulk(client, echo(), big), 413, "too-large")
    assert await row_count(client) == 0


async def test_an_empty_bulk_is_refused(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await bulk(client), 422)
    assert locations(problem) == {"body.tasks"}


async def test_the_number_of_tasks_is_limited(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_bulk_tasks": 3}))
    assert (await bulk(client, echo(), echo(), echo())).status_code == 201
    problem = assert_problem(await bulk(client, echo(), echo(), echo(), echo()), 422)
    assert "3" in problem["detail"]
    assert await row_count(client) == 3


async def test_ten_thousand_tasks_are_taken_and_one_more_is_not(client: httpx.AsyncClient) -> None:
    one = b'{"task_type":"echo"},'
    content = b'{"tasks":[' + (one * 10_000)[:-1] + b"]}"
    answer = await client.post("/tasks/bulk", content=content, headers=JSON)
    assert answer.status_code == 201
    assert len(set(answer.json()["ids"])) == 10_000
    content = b'{"tasks":[' + (one * 10_001)[:-1] + b"]}"
    assert_problem(await client.post("/tasks/bulk", content=content, headers=JSON), 422)
    assert await row_count(client) == 10_000


async def test_other_requests_are_answered_while_a_big_bulk_is_taken(client: httpx.AsyncClient) -> None:
    content = b'{"tasks":[' + (b'{"task_type":"echo"},' * 10_000)[:-1] + b"]}"
    big = asyncio.create_task(client.post("/tasks/bulk", content=content, headers=JSON))
    answered = 0
    while not big.done():
        assert (await client.get("/tasks/1")).status_code in (200, 404)
        answered += 1
    assert (await big).status_code == 201
    assert answered > 5


@pytest.mark.parametrize("body", [{"tasks": {}}, {"tasks": "x"}, {"tasks": None}, {}, {"tasks": [], "more": 1}, [], 1])
async def test_other_shapes_are_refused(client: httpx.AsyncClient, body: Any) -> None:
    assert_problem(await client.post("/tasks/bulk", json=body), 422)
    assert await row_count(client) == 0


async def test_an_idempotency_key_is_refused_here_instead_of_ignored(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tasks/bulk", json={"tasks": [{"task_type": "echo"}]}, headers={"Idempotency-Key": "k"})
    assert_problem(answer, 422)
    assert await row_count(client) == 0
