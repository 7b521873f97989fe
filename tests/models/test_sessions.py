from dataclasses import replace
from datetime import timedelta

from app.core.sessions import Session
from app.models import sessions
from app.models.database import Connection, Database
from tests.conftest import FrozenClock

HOUR = timedelta(hours=1)


async def stored(connection: Connection, clock: FrozenClock, *of: tuple[str, str, str]) -> list[Session]:
    """Of each (digest, sign-in, key)."""
    made = [Session(*one, renewed_at=clock(), expires_at=clock() + HOUR, ends_at=clock() + 9 * HOUR) for one in of]
    for session in made:
        await sessions.add(connection, session)
    return made


async def left(connection: Connection, *digests: str) -> list[str]:
    return [digest for digest in digests if await sessions.find(connection, digest)]


async def test_a_token_is_shortened_once_and_alone(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        ours, beside = await stored(connection, clock, ("d1", "s1", "k1"), ("d2", "s1", "k1"))
        assert await sessions.shorten(connection, ours, clock() + HOUR / 2)
        assert not await sessions.shorten(connection, ours, clock() + HOUR / 4), "it has changed since it was read"
        assert await sessions.find(connection, "d1") == replace(ours, expires_at=clock() + HOUR / 2)
        assert await sessions.find(connection, "d2") == beside


async def test_a_sign_in_ends_with_all_its_tokens_and_no_other(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        ours, *_ = await stored(connection, clock, ("d1", "s1", "k1"), ("d2", "s1", "k1"), ("d3", "s2", "k1"))
        assert await sessions.remove(connection, ours)
        assert not await sessions.remove(connection, ours)
        assert await left(connection, "d1", "d2", "d3") == ["d3"]


async def test_the_sessions_of_a_key_end_with_it(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        await stored(connection, clock, ("d1", "s1", "k1"), ("d2", "s2", "k1"), ("d3", "s3", "k2"))
        await sessions.remove_of_key(connection, "k1")
        assert await left(connection, "d1", "d2", "d3") == ["d3"]


async def test_what_is_over_is_forgotten(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        ours, _ = await stored(connection, clock, ("d1", "s1", "k1"), ("d2", "s2", "k2"))
        await sessions.shorten(connection, ours, clock())
        await sessions.remove_ended(connection, clock())
        assert await left(connection, "d1", "d2") == ["d2"]
