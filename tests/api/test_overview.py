"""The service at a glance as a stream: what is in it, when it comes, to whom."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.core.errors import StoreUnavailable
from app.core.settings import Settings
from app.services import snapshots
from app.services.insights import Insights, Stats
from app.services.workers import WorkerBook
from tests.api.conftest import Call, assert_problem, claim, completed, services_of, settle, streaming, submit
from tests.api.test_alerts import fired
from tests.conftest import straight, until

Headers = Sequence[tuple[bytes, bytes]]


@pytest.fixture(autouse=True)
def hasty_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second takes less, and a busy machine does not make looks rare."""
    monkeypatch.setattr(snapshots, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(snapshots, "RESTS", 0)


@asynccontextmanager
async def watching(client: httpx.AsyncClient, headers: Headers = ()) -> AsyncIterator[Call]:
    """An open stream."""
    async with Call(client, "GET", "/events", headers=headers) as call:
        assert await call.started() == 200
        yield call


async def seen(call: Call) -> dict[str, Any]:
    """The next event, which must be the overview."""
    event = await call.event()
    assert event is not None
    name, content = event
    assert name == "overview"
    return content


async def seen_when(call: Call, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first event that fits. A look may fall between two changes, or into the middle of one."""
    async with asyncio.timeout(20):
        while not fits(content := await seen(call)):
            pass
    return content


def ready(many: int) -> Callable[[dict[str, Any]], bool]:
    return lambda content: content["stats"]["ready"] == many


async def id_of(call: Call) -> str:
    """The id of the next event."""
    lines = (await call.piece() or b"").decode().splitlines()
    return next(line.removeprefix("id: ") for line in lines if line.startswith("id: "))


@straight
async def test_the_first_event_shows_all_there_is(client: httpx.AsyncClient) -> None:
    services = services_of(client)
    await submit(client, queue="letters")
    await client.patch("/queues/letters", json={"max_depth": 5})
    await client.post("/breakers/echo/trip", json={"reason": "it burns"})
    await WorkerBook(services.database).sign_in("one", [], ["echo"], 4)
    async with watching(client) as call:
        first = await seen(call)
        assert call.headers["content-type"].startswith("text/event-stream")
        assert call.headers["cache-control"] == "no-store"
    numbers = (await client.get("/stats")).json()
    del numbers["range"]
    assert first["stats"] == numbers
    (queue,), (listed,) = first["queues"], (await client.get("/queues")).json()["items"]
    assert queue.pop("oldest_ready_at") == numbers["oldest_ready_at"]
    del listed["oldest_age_seconds"]
    assert queue == listed
    (worker,) = first["workers"]
    assert worker.pop("id").startswith("one-")
    assert worker == {"name": "one", "state": "running", "slots": 4, "running": 0}
    assert first["breakers"] == (await client.get("/breakers")).json()["items"]
    assert first["alerts"] == []


async def test_the_alerts_that_fire_are_shown(serve: Any, settings: Settings) -> None:
    client = await serve(settings.model_copy(update={"alert_hold_seconds": 0.0, "alert_clear_seconds": 0.0}))
    async with watching(client) as call:
        assert (await seen(call))["alerts"] == []
        await fired(client)
        alerts = (await seen_when(call, lambda content: content["alerts"]))["alerts"]
    (listed,) = (await client.get("/alerts")).json()["items"]
    assert alerts == [{name: listed[name] for name in alerts[0]}]
    assert (alerts[0]["rule"], alerts[0]["subject"]) == ("breaker-open", "echo")


@straight
async def test_each_change_is_an_event(client: httpx.AsyncClient) -> None:
    async with watching(client) as call:
        assert (await seen(call))["queues"] == []
        await submit(client)
        await seen_when(call, ready(1))
        (claimed,) = await claim(client)
        await seen_when(call, lambda content: [queue["running"] for queue in content["queues"]] == [1])
        await settle(client, [claimed], completed(1))
        await seen_when(call, lambda content: content["stats"]["completed"] == 1 and not content["queues"])
        await client.post("/breakers/echo/trip", json={"reason": "it burns"})
        await seen_when(
            call, lambda content: ("echo", "open") in [(b["name"], b["state"]) for b in content["breakers"]]
        )


@straight
async def test_what_has_not_changed_is_not_sent_again(client: httpx.AsyncClient) -> None:
    """Neither to who watches, nor to who comes back and says what it saw."""
    await submit(client)
    async with watching(client) as call:
        id_ = await id_of(call)
    async with watching(client, [(b"last-event-id", id_.encode())]) as again, watching(client) as other:
        assert await id_of(other) == id_
        looked = looks_of(client)
        await until(lambda: looked[0] >= 3)
        assert again.silent()
        assert other.silent()
        await submit(client)
        await seen_when(again, ready(2))
    async with watching(client, [(b"last-event-id", id_.encode())]) as late:
        assert (await seen(late))["stats"]["ready"] == 2


def looks_of(client: httpx.AsyncClient) -> list[int]:
    """How often was looked from now on, in place 0."""
    shared = client.app.state.snapshots  # type: ignore[attr-defined]
    counted, look = [0], shared._look

    async def counting(tenant: str) -> Any:
        snapshot = await look(tenant)
        counted[0] += 1
        return snapshot

    shared._look = counting
    return counted


async def test_all_streams_share_a_look_and_without_any_there_is_none(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = looks_of(client)
    monkeypatch.setattr(snapshots, "TICK_SECONDS", 0.3)
    async with watching(client) as one, watching(client) as two, watching(client) as three:
        for call in (one, two, three):
            await seen(call)
        assert looked[0] == 1
    shared = client.app.state.snapshots  # type: ignore[attr-defined]
    await until(lambda: not shared._watches)
    assert looked[0] <= 2


async def test_it_shares_the_limit_of_task_streams(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_streams": 2}))
    await submit(client)
    async with streaming(client, 1), watching(client) as call:
        await seen(call)
        assert_problem(await client.get("/events"), 503, "overloaded")
        call.hang_up()
        await call.over()
        async with watching(client) as next_one:
            await seen(next_one)
    await until(lambda: client.app.state.streams._open == 0)


async def test_streams_end_when_the_process_stops(client: httpx.AsyncClient) -> None:
    async with watching(client) as call:
        await seen(call)
        client.app.state.snapshots.let_go()  # type: ignore[attr-defined]
        assert await call.event() is None
    assert (await client.get("/events")).text == ""


async def test_a_stream_outlives_trouble_with_the_store(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter(range(3))
    stats = Insights.stats

    async def flaky(self: Insights, tenant: str = "") -> Stats:
        if next(failures, None) is not None:
            raise StoreUnavailable("away")
        return await stats(self, tenant)

    monkeypatch.setattr(Insights, "stats", flaky)
    async with watching(client) as call:
        assert (await seen(call))["stats"]["ready"] == 0
    assert next(failures, None) is None


async def test_keep_alive_comments_are_sent(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.events.PING_SECONDS", 0.05)
    async with watching(client) as call:
        await seen(call)
        assert (await call.piece() or b"").startswith(b": ping")


async def test_it_takes_no_query(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/events?tenant=north"), 422, "invalid-request")
    assert (await client.head("/events")).status_code == 405


async def test_who_came_before_there_were_keys_is_told_nothing_more(client: httpx.AsyncClient) -> None:
    services = services_of(client)
    async with watching(client) as call:
        await seen(call)
        await services.keys.create("first", [])
        await services.ring.load()
        await services.limits.change("new", {"max_depth": 1})
        assert await call.event() is None
