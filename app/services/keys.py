"""API keys: making, showing and ending them; and the ring of an API process, which knows them without asking the store."""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.core.audit import Action, Actor, Deed
from app.core.errors import Conflict, NotFound, StoreUnavailable
from app.core.events import EventBus, KeyCreated, KeyRevoked, StoreTroubled
from app.core.keys import ApiKey, Scope, digest_of, token_parts
from app.models import api_keys as rows
from app.models import sessions
from app.models.database import Connection, Database, retried
from app.services.audit import note

REFRESH_SECONDS = 2.0
"""How often a ring looks whether keys were made or revoked: so long a revoked key may still be good elsewhere."""
UNKNOWN_SECONDS = 0.1
"""A key nobody knows makes a ring look at once, but never more often than this."""
NOTE_SECONDS = 60.0
"""How often is written which keys were used."""
FORGOTTEN_AT_ONCE = 500
"""Keys of a tenant that ended long ago, with one it makes."""


class Keys:
    """Makes, lists and ends API keys."""

    def __init__(self, database: Database, bus: EventBus, most_per_tenant: int) -> None:
        """`most_per_tenant`: so many good keys a tenant may have."""
        self._database = database
        self._bus = bus
        self._clock = database.clock()
        self._most = most_per_tenant

    async def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        tenant: str = "",
        expires_in: timedelta | None = None,
        by: Actor | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its token, `id.secret`, which is shown this once and kept nowhere. Returns after the commit.
        Raises Conflict where the tenant has as many as it may."""
        now = whole_milliseconds(self._clock())
        secret = secrets.token_urlsafe(32)
        key = ApiKey(
            id=f"tk{secrets.token_hex(6)}",
            name=name,
            scopes=tuple(scope.value for scope in Scope if scope in set(scopes)),
            tenant=tenant,
            digest=digest_of(secret),
            created_at=now,
            expires_at=None if expires_in is None else whole_milliseconds(now + expires_in),
        )
        async with self._database.write() as connection:
            if tenant:
                await self._make_room(connection, tenant, now, by)
            await rows.add(connection, key)
            await note(connection, by, now, Deed(Action.KEY_CREATE, f"key {key.id}", None, _audited(key)))
        self._bus.publish(KeyCreated(key))
        return key, f"{key.id}.{secret}"

    async def _make_room(self, connection: Connection, tenant: str, now: datetime, by: Actor | None) -> None:
        """Every API process holds all keys, so a tenant that makes and ends them in a loop has its oldest ended ones
        forgotten. Raises Conflict where too many are good."""
        await rows.reserve(connection, tenant)
        known = await rows.found(connection, tenant)
        ended = [key for key in known if not key.usable(now)]
        if len(known) - len(ended) >= self._most:
            raise Conflict(
                f"Tenant {tenant} has {self._most} keys that are good, which is the most (MAX_KEYS_PER_TENANT)."
            )
        forgotten = ended[: -self._most][:FORGOTTEN_AT_ONCE]
        await rows.forget(connection, [key.id for key in forgotten])
        for key in forgotten:
            await note(connection, by, now, Deed(Action.KEY_REMOVE, f"key {key.id}", _audited(key)))

    async def listed(self, tenant: str = "") -> list[ApiKey]:
        """Every key there is, the ended ones too, oldest first; of one tenant, if it is named."""
        async with self._database.read() as connection:
            return await rows.found(connection, tenant)

    @retried
    async def revoke(self, key_id: str, tenant: str = "", by: Actor | None = None) -> ApiKey:
        """End a key, and the sessions of who signed in with it; ending it twice is fine. Raises NotFound."""
        now = whole_milliseconds(self._clock())
        async with self._database.write() as connection:
            key = next((key for key in await rows.found(connection, tenant) if key.id == key_id), None)
            if key is None:
                raise NotFound("key", key_id)
            ended = await rows.revoke(connection, key_id, now)
            await sessions.remove_of_key(connection, key_id)
            after = replace(key, revoked_at=key.revoked_at or now)
            await note(connection, by, now, Deed(Action.KEY_REVOKE, f"key {key_id}", _audited(key), _audited(after)))
        if ended:
            key = replace(key, revoked_at=now)
            self._bus.publish(KeyRevoked(key))
        return key

    @retried
    async def remove(self, key_id: str, by: Actor | None = None) -> None:
        """Forget a revoked key. When none is left, nothing asks for keys any more. Raises NotFound, Conflict."""
        async with self._database.write() as connection:
            key = next((key for key in await rows.found(connection) if key.id == key_id), None)
            if key is None:
                raise NotFound("key", key_id)
            if not await rows.remove(connection, key_id):
                raise Conflict(f"Key {key_id} still opens the service; revoke it first.")
            await note(connection, by, self._clock(), Deed(Action.KEY_REMOVE, f"key {key_id}", _audited(key)))


def _audited(key: ApiKey) -> dict[str, object]:
    """All but what its secret could be guessed from."""
    return {name: getattr(key, name) for name in ("name", "scopes", "tenant", "expires_at", "revoked_at")}


def whole_milliseconds(moment: datetime) -> datetime:
    """As it will be read again."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class KeyRing:
    """The keys as one API process knows them. It asks the store every two seconds whether they have changed, and at once for
    a key that it does not know, so that no request costs a statement.

    Once there is a key, ended or not, every call needs one: the last key that expires must not open the door.
    """

    def __init__(self, database: Database, bus: EventBus) -> None:
        self._database = database
        self._bus = bus
        self._clock = database.clock()
        self._keys: dict[str, ApiKey] = {}
        self._stamp: tuple[Any, ...] = ()
        self._looked_at = 0.0
        self._looking = asyncio.Lock()
        self._used: set[str] = set()
        self.on = False
        """Whether calls need a key."""

    async def load(self) -> None:
        """Learn which keys there are. Raises StoreUnavailable."""
        async with self._database.read() as connection:
            stamp = await rows.stamp(connection)
            if stamp != self._stamp:
                self._keys = {key.id: key for key in await rows.found(connection)}
                self._stamp = stamp
                self.on = bool(self._keys)
        self._looked_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Keep up with the store, and write down what was used, until cancelled."""
        loop = asyncio.get_running_loop()
        noted_at = loop.time()
        try:
            while True:
                await asyncio.sleep(REFRESH_SECONDS)
                try:
                    await self.load()
                    if loop.time() - noted_at >= NOTE_SECONDS:
                        noted_at = loop.time()
                        await self.note_used()
                except StoreUnavailable as error:
                    self._bus.publish(StoreTroubled("look for keys", str(error)))
        finally:
            await self._note_last()

    async def _note_last(self) -> None:
        try:
            await self.note_used()
        except StoreUnavailable as error:
            self._bus.publish(StoreTroubled("note which keys were used", str(error)))

    async def note_used(self) -> None:
        """Write down that keys were used: one statement for all since the last time. Raises StoreUnavailable."""
        used, self._used = self._used, set()
        if used:
            async with self._database.write(durable=False) as connection:
                await rows.used(connection, sorted(used), self._clock())

    async def holder(self, token: str) -> ApiKey | None:
        """The key that `token` is, None if it opens nothing. Raises StoreUnavailable."""
        parts = token_parts(token)
        if parts is None:
            return None
        key_id, secret = parts
        key = await self.usable(key_id)
        if key is None or not key.fits(secret):
            return None
        self._used.add(key_id)
        return key

    async def notice(self) -> None:
        """Somebody shows a key although none is asked for: the first may have been made just now. Raises StoreUnavailable."""
        if not self.on:
            await self._look_again()

    async def usable(self, key_id: str) -> ApiKey | None:
        """The key of that id, None if it opens nothing now. Raises StoreUnavailable."""
        if key_id not in self._keys:
            await self._look_again()
        key = self._keys.get(key_id)
        return key if key is not None and key.usable(self._clock()) else None

    async def _look_again(self) -> None:
        """For a key that was made just now, perhaps. Whoever guesses keys makes us look ten times a second at most."""
        async with self._looking:
            if asyncio.get_running_loop().time() - self._looked_at >= UNKNOWN_SECONDS:
                await self.load()
