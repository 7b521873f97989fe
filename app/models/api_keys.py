"""Statements for API keys."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.keys import ApiKey
from app.models import dialects
from app.models.tables import api_keys

_FIELDS = tuple(api_keys.c[name] for name in ApiKey.__dataclass_fields__)
_all = select(*_FIELDS).order_by(api_keys.c.created_at, api_keys.c.id)
_stamp = select(
    func.count(), func.count(api_keys.c.revoked_at), func.max(api_keys.c.created_at), func.max(api_keys.c.id)
).select_from(api_keys)


async def add(connection: AsyncConnection, key: ApiKey) -> None:
    """Store a new key."""
    await connection.execute(insert(api_keys).values(asdict(key)))


async def found(connection: AsyncConnection, tenant: str = "") -> list[ApiKey]:
    """Every key, oldest first; of one tenant, if it is named."""
    statement = _all.where(api_keys.c.tenant == tenant) if tenant else _all
    return [ApiKey(*row) for row in await connection.execute(statement)]


async def stamp(connection: AsyncConnection) -> tuple[Any, ...]:
    """Something that differs after keys were made, revoked or removed."""
    return tuple((await connection.execute(_stamp)).one())


async def reserve(connection: AsyncConnection, tenant: str) -> None:
    """Have the number of a tenant's keys to ourselves until the transaction ends."""
    await dialects.reserve(connection, 3, [tenant])


async def forget(connection: AsyncConnection, key_ids: Collection[str]) -> None:
    """Forget these, whatever they are."""
    await connection.execute(delete(api_keys).where(api_keys.c.id.in_(key_ids)))


async def revoke(connection: AsyncConnection, key_id: str, now: datetime) -> bool:
    """End a key. False if it has been ended before, or is not there."""
    statement = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    return (await connection.execute(statement.values(revoked_at=now))).rowcount == 1


async def remove(connection: AsyncConnection, key_id: str) -> bool:
    """Forget a key that was revoked. False if it was not."""
    statement = delete(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_not(None))
    return (await connection.execute(statement)).rowcount == 1


async def used(connection: AsyncConnection, key_ids: Collection[str], now: datetime) -> None:
    """Note that these were used lately."""
    await connection.execute(update(api_keys).where(api_keys.c.id.in_(key_ids)).values(last_used_at=now))
