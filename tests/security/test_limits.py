"""Rates and quotas: who asks too much is told when to come back, and nobody else notices."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import access
from app.api.limits import MEMORY_BYTES, SLOTS, Levels
from app.core.lifecycle import Completed, Errored
from app.core.rate import Rate
from app.core.task import JsonText
from tests.api.conftest import claim, settle
from tests.security.conftest import House, MakeHouse


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moment by which rates are measured; it stands still until it is changed."""
    moment = [1000.0]
    monkeypatch.setattr(access, "monotonic", lambda: moment[0])
    return moment


def numbers(answer: httpx.Response) -> tuple[int, int, int]:
    return tuple(int(answer.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))  # type: ignore[return-value]


async def test_a_key_may_call_so_often_and_is_told(locked: MakeHouse, now: list[float]) -> None:
    house = await locked(key_requests_per_second=5)
    answers = [await house.ask("GET", "/tasks", "north") for _ in range(12)]
    assert [one.status_code for one in answers] == [200] * 10 + [429] * 2
    assert numbers(answers[0]) == (10, 9, 1)
    assert numbers(answers[9]) == (10, 0, 2)
    refused = answers[10]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["type"] == "urn:task-service:problem:too-many-requests"
    assert (await house.ask("GET", "/tasks", "south")).status_code == 200, "others are not affected"
    now[0] += 0.2
    assert [(await house.ask("GET", "/tasks", "north")).status_code for _ in range(2)] == [200, 429]


async def test_all_keys_of_a_tenant_share_what_one_key_may_do(locked: MakeHouse, now: list[float]) -> None:
    house = await locked(key_requests_per_second=5)
    for number in range(3):
        body = {"name": f"more-{number}", "scopes": ["read"]}
        answer = await house.ask("POST", "/api-keys", "north-admin", json=body)
        house.keys[f"more-{number}"] = answer.json()["key"]
    statuses = [(await house.ask("GET", "/tasks", f"more-{number % 3}")).status_code for number in range(9)]
    assert statuses == [200] * 7 + [429] * 2, "ten at once, three of which made the keys"
    assert (await house.ask("GET", "/tasks", "north")).status_code == 429
    assert (await house.ask("GET", "/tasks", "south")).status_code == 200, "another tenant is not affected"
    ours = [(await house.ask("GET", "/tasks", key)).status_code for key in ["all"] * 11 + ["read"]]
    assert ours == [200] * 10 + [429, 200], "keys of no tenant have each their own"


async def test_a_tenant_is_told_when_it_has_as_many_keys_as_it_may(locked: MakeHouse) -> None:
    house = await locked(max_keys_per_tenant=7)
    body = {"name": "more", "scopes": ["read"]}
    answers = [await house.ask("POST", "/api-keys", "north-admin", json=body) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 409], "six were there"
    assert answers[1].json()["type"] == "urn:task-service:problem:conflict"
    assert "MAX_KEYS_PER_TENANT" in answers[1].json()["detail"]
    assert (await house.ask("POST", "/api-keys", "admin", json=body | {"tenant": "north"})).status_code == 409
    assert (await house.ask("POST", "/api-keys", "admin", json=body)).status_code == 201
    await house.ask("DELETE", f"/api-keys/{answers[0].json()['id']}", "north-admin")
    assert (await house.ask("POST", "/api-keys", "north-admin", json=body)).status_code == 201


async def test_an_address_may_call_so_often_whatever_keys_it_shows(locked: MakeHouse, now: list[float]) -> None:
    house = await locked(address_requests_per_second=5)
    keys = [None, "north", "south", "unknown", "wrong", "read", "admin", "all", "submit", "revoked", "north", None]
    statuses = [(await house.ask("GET", "/tasks", key)).status_code for key in keys]
    assert statuses[10:] == [429, 429]
    assert 429 not in statuses[:10]
    for path in ("/health", "/health/live", "/health/ready"):
        assert (await house.ask("GET", path)).status_code == 200, "probes are let through"


async def test_without_keys_addresses_are_limited_too(serve: Any, settings: Any, now: list[float]) -> None:
    client = await serve(settings.model_copy(update={"address_requests_per_second": 1}))
    assert [(await client.get("/stats")).status_code for _ in range(3)] == [200, 200, 429]
    now[0] += 1
    assert (await client.get("/stats")).status_code == 200


async def test_ten_times_the_limit_on_many_connections_gets_the_limit(locked: MakeHouse, now: list[float]) -> None:
    house = await locked(key_requests_per_second=20)
    allowed = 0
    for _ in range(30):  # a tenth of a second each, in which twenty come at once
        answers = await asyncio.gather(*(house.ask("GET", "/task-types/echo", "north") for _ in range(20)))
        allowed += sum(one.status_code == 200 for one in answers)
        now[0] += 0.1
    assert allowed == pytest.approx(40 + 20 * 2.9, rel=0.02)


async def test_many_names_take_no_more_memory_and_disturb_nobody_who_calls() -> None:
    levels, rate = Levels(), Rate(10)
    for number in range(50_000):
        levels.take(f"address {number}", rate, number / 1000)
        if number % 100 == 0:
            assert levels.take("key steady", rate, number / 1000).remaining >= 18
    assert sum(name != 0 for name in levels._names) <= SLOTS


def test_processes_share_the_buckets_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rates"
    file.write_bytes(bytes(MEMORY_BYTES))
    first, second = Levels(file), Levels(file)
    allowed = [levels.take("key a", Rate(5), 100.0).allowed for _ in range(8) for levels in (first, second)]
    assert allowed == [True] * 10 + [False] * 6


@pytest.mark.parametrize("address", ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"])
async def test_addresses_of_one_ipv6_network_share(locked: MakeHouse, now: list[float], address: str) -> None:
    house = await locked(address_requests_per_second=1)
    transport: Any = httpx.ASGITransport(house.client.app, client=("2001:db8:1:2::7", 1))  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as first:
        assert [(await first.get("/tasks")).status_code for _ in range(3)] == [401, 401, 429]
    transport = httpx.ASGITransport(house.client.app, client=(address, 1))  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as second:
        assert (await second.get("/tasks")).status_code == 429
    assert (await house.ask("GET", "/tasks")).status_code == 401


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_tenant_may_have_so_many_tasks_waiting(locked: MakeHouse) -> None:
    house = await locked(max_waiting_per_tenant=3)
    body = {"task_type": "echo", "payload": {"number": 1}}
    first = await house.ask("POST", "/tasks", "north", json=body, headers={"Idempotency-Key": "k"})
    for _ in range(2):
        await house.submitted("north", delay_seconds=60)
    refused = await house.ask("POST", "/tasks", "north", json=body)
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:task-service:problem:quota-exceeded")
    assert refused.headers["retry-after"] == "5"
    assert (await house.ask("POST", "/tasks/bulk", "north", json={"tasks": [body]})).status_code == 429
    again = await house.ask("POST", "/tasks", "north", json=body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"]), "a repeated one is no new one"
    await house.submitted("south")
    for _ in range(5):
        await house.submitted("all")
    await settle(house.client, await claim(house.client), Completed(JsonText("{}")))
    assert (await house.ask("POST", "/tasks/bulk", "north", json={"tasks": [body] * 2})).status_code == 429
    assert (await house.ask("POST", "/tasks/bulk", "north", json={"tasks": [body]})).status_code == 201
    assert (await house.ask("GET", "/stats", "north")).json()["completed"] == 1


async def _refused(house: House, task_id: int) -> None:
    answer = await house.ask("POST", f"/tasks/{task_id}/retry", "north-manage")
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:task-service:problem:quota-exceeded")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_retry_needs_room_as_a_submission_does(locked: MakeHouse) -> None:
    house = await locked(max_waiting_per_tenant=2)
    cancelled = [await house.submitted("north", delay_seconds=60) for _ in range(2)]
    for task_id in cancelled:
        assert (await house.ask("POST", f"/tasks/{task_id}/cancel", "north")).status_code == 200
    waiting = [await house.submitted("north", delay_seconds=60) for _ in range(2)]
    for task_id in cancelled:
        await _refused(house, task_id)
    assert (await house.ask("POST", f"/tasks/{cancelled[0]}/retry", "manage")).status_code == 429, "whoever asks"
    assert (await house.ask("GET", f"/tasks/{cancelled[0]}", "north")).json()["status"] == "cancelled"
    await house.ask("POST", f"/tasks/{waiting[0]}/cancel", "north")
    assert (await house.ask("POST", f"/tasks/{cancelled[0]}/retry", "north")).status_code == 200
    await _refused(house, cancelled[1])
    ours = await house.submitted("all", delay_seconds=60)
    await house.ask("POST", f"/tasks/{ours}/cancel", "all")
    assert (await house.ask("POST", f"/tasks/{ours}/retry", "all")).status_code == 200, "what is nobody's has no quota"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_dead_letters_are_requeued_as_far_as_there_is_room(locked: MakeHouse) -> None:
    house = await locked(max_waiting_per_tenant=3)
    failed = {}
    for key in ("north", "south", "all"):
        failed[key] = [await house.submitted(key) for _ in range(3)]
        await settle(house.client, await claim(house.client), Errored("E", "no", retryable=False))
    for _ in range(2):
        await house.submitted("north", delay_seconds=60)
    for dry_run in (True, False):
        body = {"all": True, "dry_run": dry_run}
        done = (await house.ask("POST", "/dead-letters/requeue", "all", json=body)).json()
        assert (done["matched"], done["changed"]) == (9, 7)
        assert [one["id"] for one in done["skipped"]] == failed["north"][1:]
        assert {one["reason"] for one in done["skipped"]} == {
            "Tenant north may have 3 tasks waiting; try again when some have run."
        }
    again = (await house.ask("POST", "/dead-letters/requeue", "north", json={"all": True})).json()
    assert (again["matched"], again["changed"], len(again["skipped"])) == (2, 0, 2)


async def test_of_many_at_once_only_as_many_are_taken_as_there_is_room_for(locked: MakeHouse) -> None:
    house = await locked(max_waiting_per_tenant=10)

    async def submit(house: House) -> int:
        return (await house.ask("POST", "/tasks", "north", json={"task_type": "echo"})).status_code

    statuses = await asyncio.gather(*(submit(house) for _ in range(40)))
    assert sorted(statuses) == [201] * 10 + [429] * 30
