"""Sessions: who signed in with an API key, and shows a token in its place from then on.

A session is good as long as its key is. Each is looked up in the store when its token is shown, so that signing out is known
everywhere at once; people are few, and their calls are no hot path.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from app.core.errors import StoreUnavailable
from app.core.events import EventBus, SignedIn, SignedOut
from app.core.keys import ApiKey, digest_of, token_parts
from app.core.sessions import GRACE, Session, begun
from app.models import sessions as rows
from app.models.database import Database, retried
from app.services.keys import KeyRing, whole_milliseconds


@dataclass(frozen=True, slots=True)
class Guest:
    """Who signed in. `token` is what to show from now on, None where it is what was shown."""

    key: ApiKey
    session: Session
    token: str | None = None


class Sessions:
    """Begins, knows and ends sessions."""

    def __init__(self, database: Database, bus: EventBus, ring: KeyRing, life: timedelta) -> None:
        self._database = database
        self._bus = bus
        self._ring = ring
        self._life = life
        self._clock = database.clock()

    @retried
    async def begin(self, key_token: str) -> Guest | None:
        """Sign in with an API key; None if it opens nothing. Raises StoreUnavailable."""
        key = await self._ring.holder(key_token)
        if key is None:
            return None
        now = whole_milliseconds(self._clock())
        secret = secrets.token_urlsafe(32)
        session = begun(digest_of(secret), secrets.token_hex(16), key.id, now, self._life)
        async with self._database.write() as connection:
            await rows.remove_ended(connection, now)
            await rows.add(connection, session)
        self._bus.publish(SignedIn(key))
        return Guest(key, session, f"{key.id}.{secret}")

    async def holder(self, token: str) -> Guest | None:
        """Who shows this token; None if it opens nothing. Now and then there is another token for it. Raises
        StoreUnavailable."""
        guest = await self._known(token)
        if guest is None or not guest.session.aged(self._clock()):
            return guest
        try:
            return await self._renewed(guest)
        except StoreUnavailable:
            return guest  # the token is still good, and the next call tries again

    @retried
    async def end(self, token: str) -> bool:
        """Sign out: no token of this sign-in opens anything any more. False if this one opened nothing. Raises
        StoreUnavailable."""
        guest = await self._known(token)
        if guest is None:
            return False
        async with self._database.write() as connection:
            await rows.remove(connection, guest.session)
        self._bus.publish(SignedOut(guest.key))
        return True

    async def _known(self, token: str) -> Guest | None:
        """The key is asked for first: who shows tokens of unknown keys costs no statement for each."""
        parts = token_parts(token)
        key = None if parts is None else await self._ring.usable(parts[0])
        if parts is None or key is None:
            return None
        async with self._database.read() as connection:
            session = await rows.find(connection, digest_of(parts[1]))
        good = session is not None and session.key_id == key.id and session.usable(self._clock())
        return Guest(key, session) if session is not None and good else None

    async def _renewed(self, guest: Guest) -> Guest:
        """With a new token, unless a call beside this one has just got it."""
        now = whole_milliseconds(self._clock())
        secret = secrets.token_urlsafe(32)
        fresh = guest.session.renewed(digest_of(secret), now)
        async with self._database.write(durable=False) as connection:
            if not await rows.shorten(connection, guest.session, now + GRACE):
                return guest
            await rows.remove_ended(connection, now)
            await rows.add(connection, fresh)
        return Guest(guest.key, fresh, f"{guest.key.id}.{secret}")
