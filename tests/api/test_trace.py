"""The trace of a caller is kept with the task, and what is no trace is as if it were not there."""

import httpx
import pytest

from tests.api.conftest import claim, services_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TASK = {"task_type": "echo"}


async def kept(client: httpx.AsyncClient, task_id: int) -> tuple[str | None, str | None]:
    task = await services_of(client).tasks.get(task_id)
    return task.traceparent, task.tracestate


@pytest.mark.parametrize(("path", "body"), [("/tasks", TASK), ("/tasks/bulk", {"tasks": [TASK]})])
async def test_a_trace_is_stored_and_given_to_the_worker(client: httpx.AsyncClient, path: str, body: object) -> None:
    headers = [("traceparent", PARENT), ("tracestate", "congo=1"), ("tracestate", "rojo=2")]
    assert (await client.post(path, json=body, headers=headers)).status_code == 201
    assert await kept(client, 1) == (PARENT, "congo=1,rojo=2")
    (task,) = await claim(client)
    assert (task.traceparent, task.tracestate) == (PARENT, "congo=1,rojo=2")


async def test_what_is_no_trace_is_ignored(client: httpx.AsyncClient) -> None:
    for headers in ({"traceparent": "junk"}, {"traceparent": "00-" + "0" * 5000}, {"tracestate": "a=1"}):
        answer = await client.post("/tasks", json=TASK, headers=headers)
        assert answer.status_code == 201
        assert await kept(client, answer.json()["id"]) == (None, None)


async def test_a_trace_makes_no_other_request_of_a_repeated_one(client: httpx.AsyncClient) -> None:
    for number, parent in enumerate((PARENT, PARENT.replace("b7", "b8"))):
        answer = await client.post("/tasks", json=TASK, headers={"idempotency-key": "k", "traceparent": parent})
        assert (answer.status_code, answer.json()["id"]) == (201 if number == 0 else 200, 1)
