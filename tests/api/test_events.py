"""Server-sent events: the present state first, one event for each change, and an end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.api import events
from app.api.protocol import CONNECTION
from app.api.schemas import TaskSummary
from app.core.errors import StoreUnavailable
from app.core.settings import Settings
from app.core.task import JsonText, Task
from app.models import tasks as rows
from app.services.tasks import TaskService
from tests.api.conftest import (
    Call,
    assert_problem,
    claim,
    completed,
    errored,
    finished,
    read,
    run,
    services_of,
    settle,
    streaming,
    submit,
)
from tests.api.test_wait import waited_for
from tests.conftest import until


async def seen(call: Call) -> dict[str, Any]:
    """The next event, which must be about the task."""
    event = await call.event()
    assert event is not None
    name, task = event
    assert name == "task"
    return task


async def test_the_first_event_is_the_present_state(client: httpx.AsyncClient) -> None:
    task = await submit(client, payload={"number": 1})
    async with streaming(client, 1) as call:
        first = await seen(call)
        assert call.headers["content-type"].startswith("text/event-stream")
        assert call.headers["cache-control"] == "no-store"
    assert first == {name: value for name, value in task.items() if name not in ("payload", "result")}
    assert list(first) == [name for name in TaskSummary.model_fields if name != "tenant"]


async def test_each_change_is_an_event_and_the_end_ends_the_stream(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1) as call:
        assert (await seen(call))["status"] == "pending"
        (claimed,) = await claim(client)
        assert (await seen(call))["status"] == "running"
        progress = '{"percent":50.0,"message":"half","data":null,"updated_at":"2030-01-01T00:00:00Z"}'
        await services_of(client).queue.save_progress([(1, claimed.lease, JsonText(progress))])
        assert (await seen(call))["progress"]["percent"] == 50.0
        await client.post("/tasks/1/cancel")
        assert (await seen(call))["cancel_requested_at"] is not None
        await settle(client, [claimed], completed(1))
        last = await seen(call)
        assert last["status"] == "completed"
        assert await call.event() is None


async def test_events_are_numbered(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1) as call:
        assert b"id: 1\r\n" in (await call.piece() or b"")
        await claim(client)
        assert b"id: 2\r\n" in (await call.piece() or b"")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_the_stream_of_a_finished_task_is_one_event(client: httpx.AsyncClient, status: str) -> None:
    await finished(client, status)
    answer = await client.get("/tasks/1/events")
    assert answer.status_code == 200
    assert answer.text.count("event: task") == 1
    assert f'"status":"{status}"' in answer.text
    assert (await client.get("/tasks/1/events/")).status_code == 200


async def test_a_retry_is_followed_through_all_attempts(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1) as call:
        await seen(call)
        await run(client, errored(after_seconds=600))
        while (task := await seen(call))["status"] != "retrying":
            assert task["status"] == "running"
        await client.patch("/tasks/1", json={"scheduled_at": None})
        assert (await seen(call))["status"] == "pending"
        await run(client, errored(retryable=False))
        while (task := await seen(call))["status"] != "failed":
            assert task["status"] == "running"
        assert await call.event() is None


@pytest.mark.parametrize(
    "fields",
    [{"priority": 7}, {"tags": ["new"]}, {"metadata": {"new": 1}}, {"max_attempts": 9}],
    ids=lambda fields: next(iter(fields)),
)
async def test_an_edit_is_an_event(settings: Settings, serve: Any, fields: dict[str, Any]) -> None:
    """The stream shows these fields, so a listener would go on showing old ones."""
    client = await serve(settings.model_copy(update={"poll_seconds": 0.05}))
    await submit(client)
    async with streaming(client, 1) as call:
        await seen(call)
        await waited_for(client)
        await client.patch("/tasks/1", json=fields)
        async with asyncio.timeout(2):
            task = await seen(call)
        assert task.items() >= fields.items()


async def test_what_does_not_change_is_no_event(client: httpx.AsyncClient) -> None:
    await submit(client)
    await submit(client)
    async with streaming(client, 1) as call:
        await seen(call)
        await waited_for(client)
        await client.post("/tasks/2/cancel")
        async with streaming(client, 2) as other:
            await seen(other)
        await claim(client)
        assert (await seen(call))["status"] == "running"
        assert call.silent()


async def test_a_listener_that_joins_during_a_look_hears_nothing_it_has_heard(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look asks for those who wait when it begins; who comes meanwhile was not asked for, which is no change."""
    await submit(client)
    await submit(client)
    looking, go_on = asyncio.Event(), asyncio.Event()
    real = rows.versions

    async def slow(*given: Any) -> Any:
        found = await real(*given)
        looking.set()
        await go_on.wait()
        return found

    async with streaming(client, 1) as first:
        await seen(first)
        await until(lambda: services_of(client).watcher._ear)
        monkeypatch.setattr(rows, "versions", slow)
        services_of(client).watcher._ear.poke()  # type: ignore[union-attr]
        async with asyncio.timeout(10):
            await looking.wait()
        async with streaming(client, 2) as late:
            await seen(late)
            await waited_for(client, 2)
            go_on.set()
            await claim(client)
            assert (await seen(late))["status"] == "running"


async def test_a_deleted_task_ends_its_stream_with_an_event(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1) as call:
        await seen(call)
        await client.delete("/tasks/1")
        assert await call.event() == ("deleted", {})
        assert await call.event() is None


async def test_events_of_an_unknown_task_are_404(client: httpx.AsyncClient) -> None:
    for task_id in (1, 0, -1, 2**63):
        assert_problem(await client.get(f"/tasks/{task_id}/events"), 404, "not-found")


async def test_over_the_limit_of_streams_is_503_until_one_ends(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_streams": 2}))
    await submit(client)
    async with streaming(client, 1) as one, streaming(client, 1) as two:
        await seen(one)
        await seen(two)
        answer = await client.get("/tasks/1/events")
        problem = assert_problem(answer, 503, "overloaded")
        assert 1 <= int(answer.headers["retry-after"]) <= 300
        assert "2" in problem["detail"]
        assert (await client.get("/tasks/1")).status_code == 200
        one.hang_up()
        await one.over()
        async with streaming(client, 1) as three:
            await seen(three)
        await client.post("/tasks/1/cancel")
        await until(lambda: client.app.state.streams._open == 0)


async def test_streams_that_open_at_once_keep_to_the_limit(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_streams": 2}))
    await submit(client)
    calls = [Call(client, "GET", "/tasks/1/events") for _ in range(10)]
    for call in calls:
        await call.__aenter__()
    try:
        statuses = [await call.started() for call in calls]
    finally:
        for call in calls:
            await call.__aexit__()
    assert sorted(statuses) == [200] * 2 + [503] * 8


async def test_a_client_that_hangs_up_leaves_nothing_behind(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1) as call:
        await seen(call)
        await waited_for(client)
        call.hang_up()
        await call.over()
    assert not services_of(client).watcher._waiters
    assert client.app.state.streams._open == 0  # type: ignore[attr-defined]


async def test_a_stream_that_fails_before_it_begins_gives_its_place_back() -> None:
    class Broken:
        def expect_signs_of_life(self) -> None:
            raise OSError("broken")

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    async def no_events() -> AsyncIterator[bytes]:
        yield b""

    streams = events.Streams(1)
    streams.take()
    with pytest.raises(OSError, match="broken"):
        await events.CountedStream(streams, no_events())(
            {"type": "http", "state": {CONNECTION: Broken()}}, nothing, nothing
        )
    streams.take()


async def test_streams_end_when_the_process_stops(client: httpx.AsyncClient) -> None:
    await submit(client)
    async with streaming(client, 1) as call:
        await seen(call)
        await waited_for(client)
        services_of(client).watcher.let_go()
        assert await call.event() is None
    assert (await read(client, 1))["status"] == "pending"


async def test_a_stream_outlives_trouble_with_the_store(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_AGAIN_SECONDS", 0.01)
    await submit(client)
    failures = iter(range(3))
    get = TaskService.get

    async def flaky(self: TaskService, task_id: int) -> Task:
        if next(failures, None) is not None:
            raise StoreUnavailable("away")
        return await get(self, task_id)

    async with streaming(client, 1) as call:
        assert (await seen(call))["status"] == "pending"
        monkeypatch.setattr(TaskService, "get", flaky)
        await client.post("/tasks/1/cancel")
        assert (await seen(call))["status"] == "cancelled"
        assert await call.event() is None
    assert next(failures, None) is None
