"""Circuit breakers over HTTP."""

from typing import Any

import httpx
import pytest

from app.core.lifecycle import Errored
from app.core.settings import Settings
from tests.api.conftest import assert_problem, claim, run, submit
from tests.conftest import SAMPLES

CLOSED = {
    "state": "closed",
    "reason": None,
    "failures": 0,
    "trips": 0,
    "opened_at": None,
    "open_until": None,
    "tripped_by_hand": False,
    "probes": 0,
    "waiting": 0,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"executor_modules": (SAMPLES, "tests.breaker_executors")})


async def breakers(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/breakers")
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["items"]}


async def test_declared_breakers_are_listed_with_who_needs_them(client: httpx.AsyncClient) -> None:
    assert await breakers(client) == {
        "end": CLOSED | {"name": "end", "task_types": ["end"]},
        "port": CLOSED | {"name": "port", "task_types": ["call", "call_shared"]},
    }


async def test_an_open_one_says_why_and_how_much_waits(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await submit(client, "end", retry={"base_seconds": 0, "jitter": False}, max_attempts=5)
    await run(client, Errored("ConnectionRefusedError", "nobody there", dependency="end"))
    await submit(client, "end")
    found = (await breakers(client))["end"]
    assert found["open_until"] > found["opened_at"]
    assert found == CLOSED | {
        "name": "end",
        "state": "open",
        "reason": "ConnectionRefusedError: nobody there",
        "failures": 2,
        "trips": 1,
        "opened_at": found["opened_at"],
        "open_until": found["open_until"],
        "task_types": ["end"],
        "waiting": found["waiting"],
    }
    assert found["waiting"] >= 1


async def test_trip_and_reset_by_hand(client: httpx.AsyncClient) -> None:
    await submit(client, "echo")
    answer = await client.post("/breakers/echo/trip", json={"reason": "the printer is on fire", "seconds": 3600})
    assert answer.status_code == 200
    tripped = answer.json()
    assert (tripped["state"], tripped["reason"], tripped["waiting"]) == ("open", "the printer is on fire", 1)
    assert tripped["tripped_by_hand"] is True
    assert tripped["open_until"] is not None
    assert (await breakers(client))["echo"] == tripped
    assert await claim(client) == ()
    answer = await client.post("/breakers/echo/reset")
    assert answer.json() == CLOSED | {"name": "echo", "task_types": ["echo"]}
    assert len(await claim(client)) == 1
    assert "echo" not in await breakers(client)


async def test_without_seconds_it_is_open_until_it_is_reset(client: httpx.AsyncClient) -> None:
    tripped = (await client.post("/breakers/port/trip", json={"reason": "moved"})).json()
    assert (tripped["state"], tripped["open_until"]) == ("open", None)


async def test_a_breaker_that_nobody_could_need_is_not_there(client: httpx.AsyncClient) -> None:
    problem = assert_problem(await client.post("/breakers/typo/reset"), 404, "not-found")
    assert problem["detail"] == "There is no breaker typo."
    assert_problem(await client.post("/breakers/typo/trip", json={"reason": "because"}), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": "r" * 501},
        {"reason": "r", "seconds": 0},
        {"reason": "r", "seconds": -1},
        {"reason": "r", "seconds": 1e10},
        {"reason": "r", "seconds": "60"},
        {"reason": "r", "second": 60},
    ],
)
async def test_a_body_that_does_not_fit_trips_nothing(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert_problem(await client.post("/breakers/port/trip", json=body), 422, "invalid-request")
    assert (await breakers(client))["port"]["state"] == "closed"


@pytest.mark.parametrize("name", ["a b", "x" * 65, "%00", "ä"])
async def test_a_name_that_none_can_have_is_refused(client: httpx.AsyncClient, name: str) -> None:
    assert_problem(await client.post(f"/breakers/{name}/reset"), 422, "invalid-request")
