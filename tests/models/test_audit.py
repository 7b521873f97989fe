from datetime import timedelta

from app.core.audit import Entry
from app.models import audit
from app.models.audit import AuditFilter
from app.models.database import Connection, Database
from tests.conftest import FrozenClock

SECOND = timedelta(seconds=1)


async def filled(connection: Connection, clock: FrozenClock) -> list[int]:
    """Four entries, a second apart. Returns their ids, the newest first."""
    for key, tenant, action, target in (
        ("k1", "", "queue.pause", "mail"),
        ("k1", "acme", "key.create", "k3"),
        ("k2", "acme", "queue.pause", "print"),
        ("k2", "umbrella", "queue.resume", "mail"),
    ):
        await audit.add(
            connection, Entry(0, clock.forward(1), key, key, tenant, "127.0.0.1", action, target, None, None)
        )
    return [entry.id for entry in await audit.search(connection, AuditFilter(), 10)]


async def test_entries_are_found_by_what_is_asked_for(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        d, c, b, a = await filled(connection, clock)

        async def found(before_id: int | None = None, **wanted: object) -> list[int]:
            entries = await audit.search(connection, AuditFilter(**wanted), 10, before_id)  # type: ignore[arg-type]
            return [entry.id for entry in entries]

        assert await found() == [d, c, b, a]
        assert await found(before_id=c) == [b, a]
        assert await found(action="queue.pause") == [c, a]
        assert await found(key_id="k1") == [b, a]
        assert await found(target="mail") == [d, a]
        assert await found(tenant="acme") == [c, b]
        assert await found(since=clock() - SECOND) == [d, c]
        assert await found(until=clock() - SECOND) == [b, a]


async def test_the_oldest_entries_are_pruned_in_batches(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        d, c, b, _ = await filled(connection, clock)
        before = clock() - SECOND
        assert await audit.prune(connection, before, 1) == 1
        assert [entry.id for entry in await audit.search(connection, AuditFilter(), 10)] == [d, c, b]
        assert await audit.prune(connection, before, 10) == 1
        assert [entry.id for entry in await audit.search(connection, AuditFilter(), 10)] == [d, c]
