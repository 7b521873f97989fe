from datetime import datetime, timedelta

from app.core.keys import ApiKey
from app.models import api_keys
from app.models.database import Connection, Database
from tests.conftest import FrozenClock


async def stored(connection: Connection, clock: FrozenClock, *ids: str, tenant: str = "") -> None:
    for id_ in ids:
        await api_keys.add(connection, ApiKey(id_, id_, ("read",), tenant, "0" * 64, clock.forward(1)))


async def revoked(connection: Connection) -> dict[str, datetime | None]:
    return {key.id: key.revoked_at for key in await api_keys.found(connection)}


async def test_a_tenant_is_shown_its_own_keys(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        await stored(connection, clock, "a")
        await stored(connection, clock, "b", tenant="acme")
        assert [key.id for key in await api_keys.found(connection, "acme")] == ["b"]
        assert [key.id for key in await api_keys.found(connection)] == ["a", "b"]


async def test_one_key_is_revoked_once_and_then_removed(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        await stored(connection, clock, "a", "b")
        at = clock()
        assert not await api_keys.remove(connection, "a"), "it is in use"
        assert await api_keys.revoke(connection, "a", at)
        assert not await api_keys.revoke(connection, "a", at + timedelta(hours=1)), "it has been ended before"
        assert await revoked(connection) == {"a": at, "b": None}
        assert await api_keys.revoke(connection, "b", at)
        assert await api_keys.remove(connection, "a")
        assert await revoked(connection) == {"b": at}


async def test_the_use_of_some_keys_is_noted(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        await stored(connection, clock, "a", "b", "c")
        await api_keys.used(connection, ["a", "c"], clock())
        assert [key.last_used_at for key in await api_keys.found(connection)] == [clock(), None, clock()]
