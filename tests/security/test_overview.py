"""Who the stream of the overview tells what, and until when."""

import pytest

from app.api import overview
from app.services import snapshots
from tests.api.test_overview import Headers, looks_of, ready, seen, seen_when, watching
from tests.conftest import straight, until
from tests.security.conftest import House, MakeHouse


@pytest.fixture(autouse=True)
def hasty_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(snapshots, "RESTS", 0)


def showing(house: House, key: str) -> Headers:
    return [(b"authorization", f"Bearer {house.keys[key]}".encode())]


@straight
async def test_a_tenant_sees_its_own_alone(locked: MakeHouse) -> None:
    house = await locked()
    await house.submitted("north", queue="northern")
    async with (
        watching(house.client, showing(house, "north")) as north,
        watching(house.client, showing(house, "south")) as south,
    ):
        theirs = await seen(south)
        assert (theirs["stats"]["ready"], theirs["queues"]) == (0, [])
        await house.submitted("all", queue="of-nobody")
        assert [queue["queue"] for queue in (await seen(north))["queues"]] == ["northern"]
        looked = looks_of(house.client)
        await until(lambda: looked[0] >= 4)
        assert north.silent()
        assert south.silent()
        await house.submitted("south")
        await seen_when(south, ready(1))
    for name in ("workers", "breakers", "alerts"):
        assert theirs[name] is None
    async with watching(house.client, showing(house, "read")) as everyone:
        assert (await seen(everyone))["stats"]["ready"] == 3


async def test_a_revoked_key_is_told_nothing_more(locked: MakeHouse) -> None:
    house = await locked()
    async with watching(house.client, showing(house, "read")) as call:
        await seen(call)
        key_id = house.keys["read"].split(".")[0]
        assert (await house.ask("DELETE", f"/api-keys/{key_id}", "admin")).status_code == 204
        await house.services.ring.load()
        await house.submitted("all")
        assert await call.event() is None


async def test_the_stream_of_a_revoked_key_ends_though_nothing_changes(
    locked: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "PING_SECONDS", 0.05)
    house = await locked()
    async with watching(house.client, showing(house, "read")) as call:
        await seen(call)
        await house.services.keys.revoke(house.keys["read"].split(".")[0])
        await house.services.ring.load()
        assert await call.event() is None
