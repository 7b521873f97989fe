"""What attempts print and log, over HTTP."""

from typing import Any

import httpx
import pytest

from app.api.schemas import LogList
from app.core.attempt_log import AttemptLog, LogLimits, Source
from app.core.task import ClaimedTask
from tests.api.conftest import Call, assert_problem, claim, completed, errored, services_of, settle, streaming, submit


async def say(client: httpx.AsyncClient, log: AttemptLog, *texts: str) -> None:
    services = services_of(client)
    for text in texts:
        log.add(services.database.clock()(), Source.STDERR, text, {"order": 7})
    await services.queue.save_progress([], log.take())


def log_of(task: ClaimedTask, lines: int = 100) -> AttemptLog:
    return AttemptLog(task.id, task.lease, task.attempt, LogLimits(lines, 2**20))


async def logs(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/tasks/1/logs{query}")
    assert answer.status_code == 200, answer.text
    LogList.model_validate_json(answer.content, extra="forbid")
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def event(call: Call) -> tuple[str, dict[str, Any]]:
    found = await call.event()
    assert found is not None
    return found


async def test_a_task_that_said_nothing_has_no_logs(client: httpx.AsyncClient) -> None:
    await submit(client)
    assert await logs(client) == []


async def test_lines_come_by_attempt_and_say_how_many_are_missing(client: httpx.AsyncClient) -> None:
    await submit(client)
    (first,) = await claim(client)
    await say(client, log_of(first), "mail server refused")
    await settle(client, [first], errored(after_seconds=0))
    (second,) = await claim(client)
    log = log_of(second, lines=4)
    for number in range(5):
        await say(client, log, f"a{number}", f"b{number}")
    one, two = await logs(client)
    assert (one["lease"], one["attempt"], one["dropped"]) == (1, 1, 0)
    (line,) = one["lines"]
    assert (line["number"], line["source"], line["text"], line["fields"]) == (
        1,
        "stderr",
        "mail server refused",
        {"order": 7},
    )
    assert (two["lease"], two["attempt"], two["dropped"]) == (2, 2, 6)
    assert [line["text"] for line in two["lines"]] == ["a3", "b3", "a4", "b4"]
    assert await logs(client, "?lease=1") == [one]
    assert await logs(client, "?lease=9") == []


@pytest.mark.parametrize(
    ("path", "status"), [("/tasks/99/logs", 404), ("/tasks/1/logs?lease=0", 422), ("/tasks/1/logs?leas=1", 422)]
)
async def test_wrong_requests_are_refused(client: httpx.AsyncClient, path: str, status: int) -> None:
    await submit(client)
    assert_problem(await client.get(path), status)


async def test_lines_are_streamed_as_they_come_and_before_the_end(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1, query=b"logs=true") as call:
        assert (await event(call))[0] == "task"
        (task,) = await claim(client)
        assert (await event(call))[1]["status"] == "running"
        log = log_of(task)
        await say(client, log, "one", "two")
        name, view = await event(call)
        assert (name, view["lease"], view["dropped"]) == ("log", 1, 0)
        assert [line["text"] for line in view["lines"]] == ["one", "two"]
        await say(client, log, "three")
        assert [line["number"] for line in (await event(call))[1]["lines"]] == [3]
        await settle(client, [task], completed(1))
        await say(client, log, "four")
        assert [line["number"] for line in (await event(call))[1]["lines"]] == [4]
        assert (await event(call))[1]["status"] == "completed"
        assert await call.event() is None


@pytest.mark.parametrize(
    ("known", "expected"), [(b"1.3", []), (b"1.2", [1, 2, 3]), (b"junk", [1, 2, 3]), (b"9" * 50, [1, 2, 3])]
)
async def test_a_stream_goes_on_where_it_was_left(client: httpx.AsyncClient, known: bytes, expected: list[int]) -> None:
    """Lines come together as they were stored: a place between them is none that was ever given out."""
    await submit(client)
    (task,) = await claim(client)
    await say(client, log_of(task), "one", "two", "three")
    async with streaming(client, 1, query=b"logs=true", headers=[(b"last-event-id", known)]) as call:
        name, view = await event(call)
        assert ([line["number"] for line in view["lines"]] if name == "log" else []) == expected


async def test_a_stream_without_logs_is_not_woken_by_them(client: httpx.AsyncClient) -> None:
    await submit(client)
    (task,) = await claim(client)
    async with streaming(client, 1) as call:
        await event(call)
        await say(client, log_of(task), "one")
        await client.post("/tasks/1/cancel")
        assert (await event(call))[1]["cancel_requested_at"] is not None
