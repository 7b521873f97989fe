from datetime import datetime, timedelta
from typing import Any

from app.core.file import Role, StoredFile
from app.models import files
from app.models.database import Connection, Database
from tests.conftest import FrozenClock
from tests.models.conftest import Claim, Insert
from tests.models.test_queue import complete

HOUR = timedelta(hours=1)


def file(clock: FrozenClock, id_: str, **changes: Any) -> StoredFile:
    asked: dict[str, Any] = {"expires_at": clock() + HOUR}
    return StoredFile(id_, "a.txt", 1, "text/plain", "0" * 64, clock.forward(1), **asked | changes)


async def stored(connection: Connection, clock: FrozenClock, *ids: str, **changes: Any) -> None:
    for id_ in ids:
        await files.add(connection, file(clock, id_, **changes))


async def ends(connection: Connection, *ids: str) -> dict[str, datetime | None]:
    """When each of those that are there expires; None is never."""
    found = [await files.get(connection, id_, files.DOOMED_AT - HOUR) for id_ in ids]
    return {one.id: one.expires_at for one in found if one is not None}


async def test_a_file_is_there_for_its_tenant_until_it_expires(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        await stored(connection, clock, "a", "b", tenant="acme")
        await stored(connection, clock, "c", expires_at=None)
        found = await files.get(connection, "b", clock(), tenant="acme")
        assert found is not None
        assert (found.id, found.tenant) == ("b", "acme")
        assert await files.get(connection, "b", clock(), tenant="umbrella") is None
        assert await files.get(connection, "b", clock() + HOUR) is None
        assert await files.get(connection, "c", clock() + HOUR) is not None
        assert await files.kept_ids(connection, ["a", "c"], clock()) == {"a": "acme", "c": ""}
        assert await files.kept_ids(connection, ["a", "c"], clock() + HOUR) == {"c": ""}


async def test_tasks_keep_the_files_that_came_with_them(database: Database, insert: Insert, clock: FrozenClock) -> None:
    await insert({}, {})
    async with database.write() as connection:
        await stored(connection, clock, "a", "b", "c", expires_at=clock() + HOUR)
        over = clock() + HOUR - timedelta(seconds=3)
        await files.keep_inputs(connection, [(1, "a"), (2, "a"), (2, "b")])
        assert await ends(connection, "a", "b", "c") == {"a": None, "b": None, "c": over}
        assert [(one.id, role) for one, role in await files.of_task(connection, 1)] == [("a", Role.INPUT)]
        assert [one.id for one, _ in await files.of_task(connection, 2)] == ["a", "b"]
        assert await files.keepers(connection, "a") == [1, 2]
        assert await files.keepers(connection, "b") == [2]


async def test_what_an_attempt_saved_may_be_stored_again(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert()
    (task,) = await claim()
    saved = file(clock, "a", expires_at=None)
    async with database.write() as connection:
        for _ in range(2):
            assert await files.add_saved(connection, task.id, task.lease, saved, Role.OUTPUT)
        assert await files.of_task(connection, task.id) == [(saved, Role.OUTPUT)]
    await complete(database, task)
    async with database.write() as connection:
        assert not await files.add_saved(connection, task.id, task.lease, file(clock, "b"), Role.OUTPUT)
        assert await ends(connection, "b") == {}


async def test_files_expire_with_the_last_task_that_keeps_them(
    database: Database, insert: Insert, clock: FrozenClock
) -> None:
    await insert({}, {}, {})
    async with database.write() as connection:
        await stored(connection, clock, "a", "b", "c", "d", expires_at=clock() + HOUR)
        over = clock() + HOUR - timedelta(seconds=4)
        await files.keep_inputs(connection, [(1, "a"), (1, "b"), (2, "b"), (3, "c")])
        await files.let_go(connection, [1], clock())
        assert await ends(connection, *"abcd") == {"a": clock(), "b": None, "c": None, "d": over}
        later = clock.forward(1)
        await files.let_go(connection, [1, 2], later)
        assert await ends(connection, *"abcd") == {"a": later, "b": later, "c": None, "d": over}
        await files.expire(connection, "c", later)
        assert await ends(connection, *"bcd") == {"b": later, "c": later, "d": over}


async def test_temporary_files_expire_with_the_end_of_their_task(
    database: Database, insert: Insert, claim: Claim, clock: FrozenClock
) -> None:
    await insert({}, {})
    async with database.write() as connection:
        await stored(connection, clock, "given")
        await files.keep_inputs(connection, [(1, "given")])
    for task in await claim():
        async with database.write() as connection:
            for id_, role in ((f"kept{task.id}", Role.OUTPUT), (f"temporary{task.id}", Role.TEMPORARY)):
                await files.add_saved(connection, task.id, task.lease, file(clock, id_, expires_at=None), role)
    async with database.write() as connection:
        await files.let_go_temporary(connection, [1], clock())
        kept = ("given", "kept1", "kept2", "temporary2")
        assert await ends(connection, *kept, "temporary1") == {**dict.fromkeys(kept), "temporary1": clock()}


async def test_only_what_was_given_up_is_forgotten(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        await stored(connection, clock, "a", "b", "c", expires_at=clock())
        await stored(connection, clock, "d")
        await stored(connection, clock, "e", expires_at=None)
        assert not await files.any_expired(connection, clock() - HOUR)
        assert await files.any_expired(connection, clock())
        assert await files.doom(connection, clock(), 2) == ["a", "b"]
        assert set(await files.kept_ids(connection, list("abcde"), clock() - HOUR)) == {"c", "d", "e"}
        await files.remove_doomed(connection, ["b", "c", "d", "e"])
        assert list(await ends(connection, *"abcde")) == ["a", "c", "d", "e"]
