"""Sessions begin with a key, are known by their token, get new ones, and end with the key, the time or by hand."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.core.errors import StoreUnavailable
from app.core.events import SignedIn, SignedOut
from app.core.keys import ApiKey, Scope
from app.services.sessions import Guest
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.test_keys import statements_of

KEY_LIFE = timedelta(hours=2)


async def keyed(services: Services) -> tuple[ApiKey, str]:
    made = await services.keys.create("ada", [Scope.READ], "north", KEY_LIFE)
    await services.ring.load()
    return made


async def signed_in(services: Services) -> Guest:
    guest = await services.sessions.begin((await keyed(services))[1])
    assert guest is not None
    return guest


def token_of(guest: Guest | None) -> str:
    assert guest is not None
    assert guest.token is not None
    return guest.token


async def stored(services: Services) -> list[Any]:
    async with services.database.read() as connection:
        return list(await connection.execute(text("SELECT * FROM sessions")))


async def test_a_session_stands_for_the_key_until_somebody_signs_out(services: Services) -> None:
    heard: list[object] = []
    for kind in (SignedIn, SignedOut):
        services.bus.subscribe(kind, heard.append)
    guest = await signed_in(services)
    token = token_of(guest)
    known = await services.sessions.holder(token)
    assert known is not None
    assert (known.key, known.token) == (guest.key, None)
    assert await services.sessions.end(token)
    assert await services.sessions.holder(token) is None
    assert not await services.sessions.end(token)
    assert heard == [SignedIn(guest.key), SignedOut(guest.key)]
    assert await stored(services) == []


async def test_only_the_digest_of_a_token_is_stored_and_a_key_is_no_token(services: Services) -> None:
    key, key_token = await keyed(services)
    token = token_of(await services.sessions.begin(key_token))
    assert token.split(".")[1] not in str(await stored(services))
    assert await services.sessions.holder(key_token) is None
    assert await services.ring.holder(token) is None
    for wrong in ("", "x", f"{key.id}.{'x' * 43}", token[:-1] + ("A" if token[-1] != "A" else "B"), token + "x"):
        assert await services.sessions.begin(wrong) is None
        assert await services.sessions.holder(wrong) is None


async def test_a_token_of_one_key_is_not_good_with_the_id_of_another(services: Services) -> None:
    token = token_of(await signed_in(services))
    other, _ = await keyed(services)
    assert await services.sessions.holder(f"{other.id}.{token.split('.')[1]}") is None


async def test_a_revoked_key_ends_its_sessions_at_once_everywhere(services: Services) -> None:
    """Also where the ring of the process has not heard of it."""
    guest = await signed_in(services)
    await services.keys.revoke(guest.key.id)
    assert await services.ring.usable(guest.key.id) is not None
    assert await services.sessions.holder(token_of(guest)) is None
    assert await stored(services) == []


async def test_a_session_ends_with_its_key(services: Services, clock: FrozenClock) -> None:
    token = token_of(await signed_in(services))
    while (known := await services.sessions.holder(token)) is not None:
        token = known.token or token
        clock.forward(600)
        assert clock.monotonic() < 1000 + KEY_LIFE.total_seconds() + 1
    assert clock.monotonic() == 1000 + KEY_LIFE.total_seconds()


async def test_a_session_that_nobody_uses_ends(services: Services, clock: FrozenClock) -> None:
    token = token_of(await signed_in(services))
    clock.forward(1799)
    assert await services.sessions.holder(token) is not None
    clock.forward(61)
    assert await services.sessions.holder(token) is None


async def test_a_token_is_replaced_once_and_the_old_one_ends_soon(services: Services, clock: FrozenClock) -> None:
    old = token_of(await signed_in(services))
    clock.forward(900)
    together = await asyncio.gather(*(services.sessions.holder(old) for _ in range(5)))
    fresh = [guest.token for guest in together if guest is not None and guest.token is not None]
    assert len(fresh) == 1, "one of those who came together gets it"
    assert all(together)
    clock.forward(59)
    assert await services.sessions.holder(old) is not None
    clock.forward(1)
    assert await services.sessions.holder(old) is None
    assert await services.sessions.holder(fresh[0]) is not None


async def test_who_signs_out_ends_the_token_before_too(services: Services, clock: FrozenClock) -> None:
    old = token_of(await signed_in(services))
    clock.forward(900)
    fresh = token_of(await services.sessions.holder(old))
    assert await services.sessions.end(fresh)
    assert await services.sessions.holder(old) is None


async def test_what_is_over_is_forgotten(services: Services, clock: FrozenClock) -> None:
    _, key_token = await keyed(services)
    for _ in range(3):
        await services.sessions.begin(key_token)
    clock.forward(1801)
    await services.sessions.begin(key_token)
    assert len(await stored(services)) == 1


async def test_a_store_that_takes_nothing_keeps_the_token(
    services: Services, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(await signed_in(services))
    clock.forward(900)

    def full(**_: object) -> None:
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(services.database, "write", full)
    guest = await services.sessions.holder(token)
    assert guest is not None
    assert guest.token is None


async def test_tokens_of_keys_that_are_not_there_cost_no_statement_each(services: Services) -> None:
    await keyed(services)
    seen = statements_of(services)
    for number in range(100):
        assert await services.sessions.holder(f"tk{number:012x}.{'x' * 43}") is None
    assert len(seen) < 10
