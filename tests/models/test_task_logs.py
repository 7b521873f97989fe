from app.core.attempt_log import KEPT_ATTEMPTS, Chunk
from app.core.task import JsonText
from app.models import task_logs
from app.models.database import Connection, Database
from tests.models.conftest import Insert


def chunk(task_id: int, lease: int, number: int, keep_from: int = 1) -> Chunk:
    return Chunk(task_id, lease, number, 1, lease, JsonText(f'["{task_id} {lease} {number}"]'), keep_from)


async def stored(connection: Connection, *chunks: tuple[int, int, int]) -> None:
    await task_logs.append(connection, [chunk(*one) for one in chunks])


async def lines(connection: Connection, task_id: int, position: task_logs.Position = (0, 0)) -> list[tuple[int, int]]:
    return [(one.lease, one.number) for one in await task_logs.after(connection, task_id, position)]


async def test_lines_are_stored_once_and_for_tasks_that_are_there(database: Database, insert: Insert) -> None:
    await insert({})
    async with database.write() as connection:
        await stored(connection, (1, 1, 1))
        await task_logs.append(
            connection, [Chunk(1, 1, 1, 1, 1, JsonText('["changed"]')), chunk(1, 1, 2), chunk(9, 1, 1)]
        )
        assert await task_logs.after(connection, 1) == [chunk(1, 1, 1), chunk(1, 1, 2)]
        assert await lines(connection, 9) == []


async def test_a_reader_is_given_what_is_behind_its_place(database: Database, insert: Insert) -> None:
    await insert({}, {})
    async with database.write() as connection:
        await stored(connection, (1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), (1, 3, 1), (2, 2, 3))
        assert await lines(connection, 1) == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]
        assert await lines(connection, 1, (2, 1)) == [(2, 2), (3, 1)]
        assert await lines(connection, 1, (1, 2)) == [(2, 1), (2, 2), (3, 1)]
        assert await lines(connection, 1, (3, 1)) == []
        assert await task_logs.positions(connection, [1, 2, 3]) == {1: (3, 1), 2: (2, 3), 3: (0, 0)}


async def test_only_the_oldest_lines_of_that_attempt_are_dropped(database: Database, insert: Insert) -> None:
    await insert({}, {})
    async with database.write() as connection:
        await stored(connection, *((1, lease, number) for lease in (1, 2) for number in (1, 2, 3)), (2, 1, 1))
        await task_logs.drop(connection, [chunk(1, 1, 4, keep_from=3), chunk(1, 2, 4), chunk(2, 2, 4, keep_from=9)])
        assert await lines(connection, 1) == [(1, 3), (2, 1), (2, 2), (2, 3)]
        assert await lines(connection, 2) == [(1, 1)]


async def test_only_the_attempts_before_the_last_are_dropped(database: Database, insert: Insert) -> None:
    await insert({}, {})
    last = KEPT_ATTEMPTS + 2
    async with database.write() as connection:
        await stored(connection, *((task_id, lease, 1) for task_id in (1, 2) for lease in range(1, last)))
        await task_logs.drop_attempts(connection, [chunk(1, last, 1), chunk(2, last, 2)])
        assert await lines(connection, 1) == [(lease, 1) for lease in range(3, last)]
        assert await lines(connection, 2) == [
            (lease, 1) for lease in range(1, last)
        ], "it is not the first of an attempt"
