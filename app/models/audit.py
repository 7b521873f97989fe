"""Statements for the audit log: appended, read by pages, pruned. Nothing in it is ever changed."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.audit import Entry
from app.models.tables import audit_log

_FIELDS = tuple(audit_log.c[name] for name in Entry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are meant; None is any. `tenant` empty: everyone's. `since` and `until`: at or after, and before."""

    action: str | None = None
    key_id: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    tenant: str = ""


async def add(connection: AsyncConnection, entry: Entry) -> None:
    """Append it; its id is given by the store."""
    values = {name: value for name, value in asdict(entry).items() if name != "id"}
    await connection.execute(insert(audit_log).values(values))


async def search(
    connection: AsyncConnection, wanted: AuditFilter, limit: int, before_id: int | None = None
) -> list[Entry]:
    """Up to `limit` entries, newest first."""
    statement = select(*_FIELDS)
    for name in ("action", "key_id", "target"):
        value = getattr(wanted, name)
        if value is not None:
            statement = statement.where(audit_log.c[name] == value)
    if wanted.tenant:
        statement = statement.where(audit_log.c.tenant == wanted.tenant)
    if wanted.since is not None:
        statement = statement.where(audit_log.c.at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(audit_log.c.at < wanted.until)
    if before_id is not None:
        statement = statement.where(audit_log.c.id < before_id)
    rows = await connection.execute(statement.order_by(audit_log.c.id.desc()).limit(limit))
    return [Entry(*row) for row in rows]


async def prune(connection: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete up to `limit` entries of before `before`, oldest first. Returns how many."""
    old = select(audit_log.c.id).where(audit_log.c.at < before).order_by(audit_log.c.at).limit(limit)
    return (await connection.execute(delete(audit_log).where(audit_log.c.id.in_(old.scalar_subquery())))).rowcount
