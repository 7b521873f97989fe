from app.models import concurrency
from app.models.database import Connection, Database
from tests.models.conftest import Claim, Insert


async def seen(connection: Connection, *keys: str) -> dict[str, list[tuple[int, str]]]:
    found = await concurrency.contenders(connection, keys)
    return {key: sorted((one.id, str(one.status)) for one in some) for key, some in found.items()}


async def test_who_contends_for_a_key_is_told_once_and_of_no_other(
    database: Database, insert: Insert, claim: Claim
) -> None:
    await insert(*[{"concurrency_key": key} for key in "aaabb"], {})
    async with database.write() as connection:
        assert await concurrency.admit(connection, [1]) == {1: "default"}
    await claim(room=1, pairs=[("default", "echo")])
    async with database.write() as connection:
        assert await seen(connection, "a") == {"a": [(1, "running"), (2, "blocked"), (3, "blocked")]}
        assert await seen(connection, "b", "c") == {"b": [(4, "blocked"), (5, "blocked")]}


async def test_these_are_moved_and_nobody_else(database: Database, insert: Insert) -> None:
    await insert(*[{"concurrency_key": "a"}] * 3, {})
    async with database.write() as connection:
        assert await concurrency.admit(connection, [2, 4, 99]) == {2: "default"}, "the fourth is ready already"
        assert await seen(connection, "a") == {"a": [(1, "blocked"), (2, "pending"), (3, "blocked")]}
        assert await concurrency.admit(connection, [1]) == {1: "default"}
        assert await concurrency.displace(connection, [2, 3]) == {2}, "the third has no place"
        assert await seen(connection, "a") == {"a": [(1, "pending"), (2, "blocked"), (3, "blocked")]}
