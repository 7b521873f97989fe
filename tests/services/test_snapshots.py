import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from app.core.errors import StoreUnavailable
from app.core.events import EventBus, StoreTroubled
from app.services import snapshots as module
from app.services.snapshots import Snapshot, Snapshots
from tests.conftest import until


class Place:
    """Something to look at: what each tenant would see, and how often was looked."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.looks: Counter[str] = Counter()
        self.away = False
        self.troubles: list[object] = []
        bus = EventBus()
        bus.subscribe(StoreTroubled, self.troubles.append)
        self.snapshots = Snapshots(self.look, bus)

    async def look(self, tenant: str) -> Snapshot:
        self.looks[tenant] += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        shown = self.shown.get(tenant, "first")
        return Snapshot(shown, shown.encode())


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    place = Place()
    yield place
    await place.snapshots.close()
    assert place.snapshots._watches == {}


async def ids(waiting: list[asyncio.Task[Snapshot | None]]) -> set[str | None]:
    async with asyncio.timeout(10):
        return {None if one is None else one.id for one in await asyncio.gather(*waiting)}


def waiting(place: Place, many: int, tenant: str = "", seen: str | None = None) -> list[asyncio.Task[Snapshot | None]]:
    return [asyncio.create_task(place.snapshots.newer(tenant, seen, 30)) for _ in range(many)]


async def test_all_who_wait_share_one_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 60.0)
    assert await ids(waiting(place, 200)) == {"first"}
    assert await ids(waiting(place, 200)) == {"first"}
    assert place.looks == {"": 1}


async def test_who_has_seen_it_waits_for_another(place: Place) -> None:
    calls = waiting(place, 120, seen="first")
    await until(lambda: place.looks[""] >= 3)
    assert not any(call.done() for call in calls)
    place.shown[""] = "second"
    assert await ids(calls) == {"second"}


async def test_nobody_looks_while_nobody_waits(place: Place) -> None:
    await ids(waiting(place, 3))
    await until(lambda: not place.snapshots._watches)
    before = place.looks[""]
    await asyncio.sleep(0.05)
    assert place.looks[""] == before
    place.shown[""] = "second"
    assert await ids(waiting(place, 1)) == {"second"}, "what was seen before is not told when somebody comes again"


async def test_each_tenant_is_looked_for_on_its_own_while_it_waits(place: Place) -> None:
    place.shown = {"north": "of north", "south": "of south"}
    calls = waiting(place, 2, "north"), waiting(place, 2, "south")
    assert [await ids(one) for one in calls] == [{"of north"}, {"of south"}]
    assert set(place.looks) == {"north", "south"}


async def test_nothing_new_in_the_time_is_none(place: Place) -> None:
    assert await place.snapshots.newer("", "first", 0.03) is None
    assert place.looks[""] >= 1


async def test_who_waits_outlives_trouble_with_the_store(place: Place) -> None:
    place.away = True
    calls = waiting(place, 2)
    await until(lambda: len(place.troubles) >= 2)
    place.away = False
    assert await ids(calls) == {"first"}


async def test_looks_that_take_long_are_rare(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTS", 1_000_000)
    calls = waiting(place, 1, seen="first")
    await until(lambda: place.looks[""] == 1)
    await asyncio.sleep(0.05)
    assert place.looks[""] == 1
    place.snapshots.let_go()
    assert await ids(calls) == {None}


async def test_all_are_let_go_and_nobody_waits_from_then_on(place: Place) -> None:
    calls = waiting(place, 3, seen="first") + waiting(place, 3, "north", seen="first")
    await until(lambda: len(place.looks) == 2)
    place.snapshots.let_go()
    assert await ids(calls + waiting(place, 1)) == {None}
