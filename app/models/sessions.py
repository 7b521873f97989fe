"""Statements for the sessions of people who signed in."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.sessions import Session
from app.models.tables import sessions

_FIELDS = tuple(sessions.c[name] for name in Session.__dataclass_fields__)


async def add(connection: AsyncConnection, session: Session) -> None:
    """Store a new token's session."""
    await connection.execute(insert(sessions).values(asdict(session)))


async def find(connection: AsyncConnection, digest: str) -> Session | None:
    """The session of the token with that digest, whether it is over or not."""
    row = (await connection.execute(select(*_FIELDS).where(sessions.c.digest == digest))).one_or_none()
    return None if row is None else Session(*row)


async def shorten(connection: AsyncConnection, session: Session, expires_at: datetime) -> bool:
    """Let it end earlier. False if somebody else has changed or removed it since it was read."""
    found = update(sessions).where(sessions.c.digest == session.digest, sessions.c.expires_at == session.expires_at)
    return (await connection.execute(found.values(expires_at=expires_at))).rowcount == 1


async def remove(connection: AsyncConnection, session: Session) -> bool:
    """Forget every token of its sign-in. False if there was none."""
    same = delete(sessions).where(sessions.c.sign_in == session.sign_in)
    return (await connection.execute(same)).rowcount > 0


async def remove_of_key(connection: AsyncConnection, key_id: str) -> None:
    """Forget every session that was begun with the key."""
    await connection.execute(delete(sessions).where(sessions.c.key_id == key_id))


async def remove_ended(connection: AsyncConnection, now: datetime) -> None:
    """Forget what is over."""
    await connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
