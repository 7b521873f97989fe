"""The audit log: who did what, to what, from where. Written in the transaction of what was done, so that there is neither a
deed without its entry nor an entry without its deed."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.core.audit import Actor, Deed, Entry, shown
from app.core.settings import Settings
from app.models import audit as rows
from app.models.audit import AuditFilter
from app.models.database import Connection, Database

PRUNED_AT_ONCE = 500


async def note(connection: Connection, by: Actor | None, now: datetime, deed: Deed) -> None:
    """Write it down with the transaction. Nothing is where nobody in particular did it (None): the service itself."""
    if by is not None:
        await rows.add(connection, _entry(by, now, deed))


def _entry(by: Actor, now: datetime, deed: Deed) -> Entry:
    before, after = shown(deed.before), shown(deed.after)
    return Entry(0, now, by.key_id, by.name, by.tenant, by.address, deed.action, deed.target, before, after)


class AuditLog:
    """The log of one store."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._clock = database.clock()

    async def add(self, by: Actor, deed: Deed) -> None:
        """Write down what had no transaction of its own."""
        async with self._database.write() as connection:
            await note(connection, by, self._clock(), deed)

    async def search(self, wanted: AuditFilter, limit: int, before_id: int | None = None) -> Sequence[Entry]:
        """Up to `limit` entries, newest first."""
        async with self._database.read() as connection:
            return await rows.search(connection, wanted, limit, before_id)

    async def prune(self) -> bool:
        """Delete what is older than its retention. True if there may be more."""
        before = self._clock() - timedelta(seconds=self._settings.retention_audit_seconds)
        async with self._database.write(durable=False) as connection:
            return await rows.prune(connection, before, PRUNED_AT_ONCE) == PRUNED_AT_ONCE
