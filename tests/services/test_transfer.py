"""A database that is moved to another store is all there, and nobody works on it before that was made sure of."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text
from typer.testing import CliRunner

from app.core.errors import SchemaError, StoreError
from app.core.lifecycle import Completed, Errored, TimedOut
from app.core.settings import Settings
from app.core.task import JsonText, Status
from app.models import transfer as rows
from app.models.database import Database
from app.models.tables import metadata
from app.models.transfer import TABLES
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.transfer import Progress, Transfer, TransferResult
from app.services.wiring import Services, open_services
from app.transfer import command
from tests.conftest import SAMPLES, FrozenClock
from tests.file_places import PLACES, BucketPlace, FolderPlace, S3Server
from tests.stores import PostgresDatabases, Stores

SOME = 40
MANY = 3000
SILENCE = timedelta(seconds=60)
WAYS = tuple(itertools.product(("sqlite", "postgres"), repeat=2))

Serve = Callable[[str], AbstractAsyncContextManager[Services]]


@pytest.fixture
def store() -> str:
    """For the tests that are about none of them."""
    return "sqlite"


@pytest.fixture
def serve(clock: FrozenClock, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def start(url: str) -> AsyncIterator[Services]:
        settings = Settings(database_url=url, files_dir=tmp_path / "files", executor_modules=(SAMPLES,))
        async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
            yield services

    return start


@pytest.fixture
async def source(stores: Stores, serve: Serve) -> str:
    """The address of a service that has done some work and was stopped."""
    url = await stores.fresh()
    async with serve(url) as services:
        await work(services, SOME)
    return url


@pytest.fixture
async def target(stores: Stores) -> str:
    return await stores.bare()


async def work(services: Services, tasks: int) -> None:
    """Have `tasks` submitted and some of them done, in every way; one runs, one that refers to another is deleted."""
    async with await services.files.receive() as reception:
        await reception.write(b"data")
        file = await reception.finish("grüße.txt", "text/plain")
    asked = [
        {"task_type": "echo", "payload": {"number": number}, "tags": ["a", f"n{number}"], "unique_key": f"u{number}"}
        for number in range(tasks - 2)
    ]
    prepared = [services.intake.prepare(Submission.model_validate(one)) for one in asked]
    ids = await services.tasks.submit_all(prepared)
    of_file = {"task_type": "copy_file", "payload": {"file_id": file.id}, "parent_id": ids[0]}
    await services.tasks.submit(services.intake.prepare(Submission.model_validate(of_file), "key"))
    last = await services.tasks.submit(services.intake.prepare(Submission(task_type="echo")))
    await services.tasks.delete(last.task.id)  # its id is given to nobody else, ever
    claimed = await claim(services, tasks // 2)
    await services.queue.add_checkpoint(claimed[0].task.id, claimed[0].task.lease, JsonText("1"))
    await services.queue.exchange("w", claimed[1:])
    async with services.database.write() as connection:
        await connection.execute(text("INSERT INTO queues (name, paused) VALUES ('mail', TRUE)"))


async def claim(services: Services, room: int) -> list[Ended]:
    exchange = await services.queue.exchange(
        "w", [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), room)]
    )
    outcomes = (Completed(JsonText('{"a":0.1}')), Errored("E", "ünd"), Errored("E", "no", retryable=False), TimedOut(5))
    now = services.database.clock()()
    return [
        Ended(task, outcome, now) for task, outcome in zip(exchange.claimed, itertools.cycle(outcomes), strict=False)
    ]


def tell_nobody(what: str, done: int, total: int) -> None: ...


async def move(
    source: str,
    target: str,
    clock: FrozenClock,
    progress: Progress = tell_nobody,
    *,
    ahead: bool = False,
    files: tuple[str, str] | None = None,
) -> TransferResult | None:
    databases = [Database(url, patient=True, clock=clock) for url in (source, target)]
    try:
        transfer = Transfer(databases[0], databases[1], SILENCE, progress, files)
        return await transfer.copy_ahead() if ahead else await transfer.move()  # type: ignore[func-returns-value]
    finally:
        for database in databases:
            await database.close()


async def contents(url: str) -> dict[str, set[object]]:
    """Every row of every table, read by our own types."""
    database = Database(url, patient=True)
    try:
        async with database.read() as connection:
            return {
                table.name: {tuple(row) for row in await connection.execute(select(table))}
                for table in metadata.sorted_tables
            }
    finally:
        await database.close()


async def change(url: str, *statements: str) -> None:
    database = Database(url)
    try:
        async with database.write() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await database.close()


@pytest.mark.parametrize(("before", "after"), WAYS)
async def test_all_is_there_and_work_goes_on_where_it_was(
    before: str,
    after: str,
    tmp_path: Path,
    migrated: Path,
    postgres: PostgresDatabases,
    serve: Serve,
    clock: FrozenClock,
) -> None:
    def stores(kind: str) -> Stores:
        return Stores(kind, tmp_path / kind, migrated, postgres if kind == "postgres" else None)

    (tmp_path / "sqlite").mkdir()
    source = await stores(before).fresh()
    target = await stores(after).bare()
    async with serve(source) as services:
        await work(services, MANY)
    was = await contents(source)
    assert len(was["tasks"]) == MANY - 1
    assert all(was[name] for name in ("task_attempts", "checkpoints", "files", "task_files", "queues"))

    result = await move(source, target, clock)
    assert result is not None
    assert (result.is_done, result.broken) == (True, [])
    assert {table.name: table.target.rows for table in result.tables} == {name: len(of) for name, of in was.items()}
    assert await contents(target) == was
    assert await contents(source) == was

    async with serve(target) as services:
        assert (await services.tasks.get(1)).status is Status.RUNNING
        new = await services.tasks.submit(services.intake.prepare(Submission(task_type="echo")))
        assert new.task.id == MANY + 1
        clock.forward(3600)
        await services.chores.promote()
        assert len(await claim(services, 10)) == 10
        kept = services.intake.prepare(
            Submission(task_type="copy_file", payload={"file_id": file_of(was)}, parent_id=1), "key"
        )
        assert (await services.tasks.submit(kept)).replayed


def file_of(was: dict[str, set[object]]) -> str:
    (row,) = was["files"]
    return str(row[0])  # type: ignore[index]


class BrokenOff(Exception):
    """Somebody pulled the plug."""


async def test_what_was_broken_off_goes_on_and_starts_nowhere_before_it_is_done(
    source: str, target: str, clock: FrozenClock, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PAGE_ROWS", 10)

    def break_off(what: str, done: int, total: int) -> None:
        if (what, done) == ("copy tasks", 20):
            raise BrokenOff

    with pytest.raises(BrokenOff):
        await move(source, target, clock, break_off)
    assert len((await contents(target))["tasks"]) == 20
    with pytest.raises(SchemaError, match="a transfer into it is not finished"):
        async with serve(target):
            pass
    with pytest.raises(StoreError, match="holds a part of another one"):
        await move(target, source, clock)

    added: list[int] = []
    add = rows.add

    async def counted(connection: object, table: rows.Table, some: rows.Rows) -> None:
        added.append(len(some) if table.name == "tasks" else 0)
        await add(connection, table, some)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "add", counted)
    result = await move(source, target, clock)
    assert result is not None
    assert result.is_done
    assert sum(added) == SOME - 1 - 20
    assert await contents(target) == await contents(source)


async def test_a_copy_made_ahead_is_finished_with_what_has_changed(
    source: str, target: str, clock: FrozenClock, serve: Serve
) -> None:
    async with serve(source) as services:
        assert await move(source, target, clock, ahead=True) is None
        assert await contents(target) == await contents(source)
        await services.tasks.delete(2)
        await services.tasks.delete(3)
        clock.forward(3600)
        await services.chores.promote()
        await services.queue.exchange("w", await claim(services, 20))
        # A key goes from one task to another: in between both stand in the target as they were.
        asked = Submission(task_type="echo", unique_key="u1", parent_id=4)
        await services.tasks.submit(services.intake.prepare(asked))
    result = await move(source, target, clock)
    assert result is not None
    assert result.is_done
    assert await contents(target) == await contents(source)


async def test_children_of_a_task_that_has_changed_keep_their_parent(
    source: str, target: str, clock: FrozenClock
) -> None:
    """To replace a row is to delete it, and that would make its children orphans."""
    await change(
        source, "UPDATE tasks SET parent_id = 5 WHERE id IN (6, 7)", "UPDATE tasks SET parent_id = 6 WHERE id = 8"
    )
    await move(source, target, clock, ahead=True)
    await change(source, "UPDATE tasks SET priority = 9 WHERE id = 5")
    result = await move(source, target, clock)
    assert result is not None
    assert result.is_done
    assert await contents(target) == await contents(source)


async def test_nothing_is_overwritten(source: str, stores: Stores, clock: FrozenClock, serve: Serve) -> None:
    full = await stores.fresh()
    async with serve(full) as services:
        await services.tasks.submit(services.intake.prepare(Submission(task_type="echo")))
    with pytest.raises(StoreError, match="has tasks or files already; nothing is overwritten"):
        await move(source, full, clock)
    assert len((await contents(full))["tasks"]) == 1
    async with serve(full):
        pass


async def test_two_sources_do_not_mix(source: str, target: str, stores: Stores, clock: FrozenClock) -> None:
    await move(source, target, clock, ahead=True)
    other = await stores.fresh()
    with pytest.raises(StoreError, match="holds a part of another database"):
        await move(other, target, clock)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_what_still_changes_is_not_moved(
    kind: str,
    tmp_path: Path,
    migrated: Path,
    postgres: PostgresDatabases,
    serve: Serve,
    clock: FrozenClock,
) -> None:
    busy = await Stores(kind, tmp_path, migrated, postgres if kind == "postgres" else None).fresh()
    target = f"sqlite:///{tmp_path}/target.db"
    async with serve(busy) as services:
        with pytest.raises(StoreError, match=r"open in another process\. What still changes cannot be moved: stop"):
            await move(busy, target, clock)
        await services.workers.sign_in("w", (), ("echo",), 1)
    # A worker that is behind a pooler, or was killed.
    with pytest.raises(StoreError, match=r"within the last 60 s: w on .* \(process \d+\)\. What still changes"):
        await move(busy, target, clock)
    assert not Path(f"{tmp_path}/target.db").exists()
    clock.forward(61)
    assert await move(busy, target, clock) is not None


async def test_a_source_that_changed_meanwhile_leaves_the_target_shut(
    source: str, target: str, clock: FrozenClock, serve: Serve
) -> None:
    def interfere(what: str, done: int, total: int) -> None:
        if (what, done) == ("copy task_files", 0):
            with ThreadPoolExecutor() as thread:
                thread.submit(asyncio.run, change(source, "UPDATE tasks SET priority = 9 WHERE id = 5")).result()

    result = await move(source, target, clock, interfere)
    assert result is not None
    assert [table.name for table in result.tables if not table.is_same] == ["tasks"]
    with pytest.raises(SchemaError):
        async with serve(target):
            pass
    again = await move(source, target, clock)
    assert again is not None
    assert again.is_done
    async with serve(target):
        pass


async def test_a_page_is_bounded_by_its_texts(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of the largest payloads and results would be over a gigabyte."""
    monkeypatch.setattr(rows, "PAGE_BYTES", 1000)
    await change(source, 'UPDATE tasks SET metadata = \'{"a": "' + "é" * 600 + "\"}' WHERE id IN (3, 5)")
    (tasks,) = [table for table in TABLES if table.name == "tasks"]
    database = Database(source)
    try:
        async with database.snapshot() as connection:
            pages, last = [], None
            while page := await rows.page(connection, tasks, last):
                pages.append([row.id for row in page])
                last = rows.key_of(tasks, page[-1])
    finally:
        await database.close()
    assert [id_ for page in pages for id_ in page] == list(range(1, SOME))
    assert [3] in pages
    assert [5] in pages
    assert all(len(page) < 20 for page in pages)


def run(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(command, [str(one) for one in arguments])
    return ran.exit_code, ran.output


async def test_the_command_says_what_came_of_it(source: str, target: str, tmp_path: Path) -> None:
    status, output = await asyncio.to_thread(run, source, target, "--ahead")
    assert (status, output) == (
        0,
        "Copied ahead. Stop the API and every worker, then run the same command without --ahead.\n",
    )
    status, output = await asyncio.to_thread(run, source, target)
    assert (status, f"same    tasks: {SOME - 1} rows" in output, "0 broken. Start the API" in output) == (0, True, True)
    assert await asyncio.to_thread(run, source, f"sqlite:///{tmp_path}/other.db", "--quiet") == (0, "")


async def test_the_command_tells_programs_as_well(source: str, target: str) -> None:
    assert await asyncio.to_thread(run, source, target, "--ahead", "--json") == (0, '{"done": false}\n')
    status, output = await asyncio.to_thread(run, source, target, "--json")
    told = json.loads(output)
    assert (status, told["done"], told["broken"]) == (0, True, [])
    assert {"table": "tasks", "same": True, "source_rows": SOME - 1, "target_rows": SOME - 1} in told["tables"]


async def test_what_was_broken_before_is_moved_and_told(source: str, target: str, serve: Serve) -> None:
    await change(source, "UPDATE tasks SET lease = 7 WHERE id = 9")
    status, output = await asyncio.to_thread(run, source, target, "--quiet")
    assert status == 1
    assert "BROKEN  every claim is accounted for once" in output
    assert output.rstrip().endswith("task 9 (as in the source)")
    async with serve(target):
        pass


async def test_what_cannot_be_moved_is_one_line_and_status_2(source: str, target: str, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    await change(
        f"sqlite:///{old}", "CREATE TABLE alembic_version (version_num)", "INSERT INTO alembic_version VALUES ('0001')"
    )
    foreign = tmp_path / "foreign.db"
    await change(f"sqlite:///{foreign}", "CREATE TABLE tasks (id)")
    for pair, words in (
        ((source, source), "cannot be moved to where it is"),
        (("mysql://x", target), "DATABASE_URL"),
        ((source, target, "--files-from", "data/files"), "Give both"),
        ((source, target, "--files-from", "data/files", "--files-to", "gs://x"), "FILES_URL"),
        ((source, "postgresql://somebody:secret@127.0.0.1:1/tasks"), "cannot be used"),
        ((f"sqlite:///{tmp_path}/none.db", target), "There is no database at"),
        ((f"sqlite:///{__file__}", target), "not a database"),
        ((f"sqlite:///{old}", target), "has schema version 0001"),
        ((f"sqlite:///{foreign}", target), "is no database of this service"),
        ((source, f"sqlite:///{foreign}"), "this service did not make"),
    ):
        status, output = await asyncio.to_thread(run, *pair)
        assert (status, words in output, output.count("\n"), "secret" in output) == (2, True, 1, False), output


@pytest.mark.parametrize(("before", "after"), [*itertools.product(PLACES, repeat=2)])
async def test_the_bytes_of_files_come_along(
    before: str,
    after: str,
    stores: Stores,
    target: str,
    clock: FrozenClock,
    tmp_path: Path,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    old, new = (
        BucketPlace() if kind == "bucket" else FolderPlace(tmp_path / number)
        for kind, number in ((before, "old"), (after, "new"))
    )
    source = await stores.fresh()
    settings = Settings(database_url=source, executor_modules=(SAMPLES,), **old.settings)
    places = (old.address, new.address)
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
        await work(services, SOME)
        gone = await upload(services, b"gone")
        changed = await upload(services, b"changed")
        await move(source, target, clock, ahead=True, files=places)
        assert new.names() == old.names()
        await services.files.delete(gone)
        long = await upload(services, bytes(6 * 2**20))
    result = await move(source, target, clock, files=places)
    assert result is not None
    assert (result.is_done, result.broken) == (True, [])
    assert new.names() == old.names() >= {changed, long}
    async with open_services(settings.model_copy(update={"database_url": target, **new.settings})) as services:
        with await services.files.open(changed) as stream:
            assert stream.read() == b"changed"


async def upload(services: Services, data: bytes) -> str:
    async with await services.files.receive() as reception:
        await reception.write(data)
        return (await reception.finish("a", None)).id


async def test_a_file_that_is_damaged_is_not_copied_and_one_that_gets_lost_keeps_the_target_shut(
    source: str, stores: Stores, clock: FrozenClock, serve: Serve, tmp_path: Path
) -> None:
    async with serve(source) as services:
        damaged, whole = await upload(services, b"damaged"), await upload(services, b"whole")
    old, new = FolderPlace(tmp_path / "files"), FolderPlace(tmp_path / "new")
    old.overwrite(damaged, b"demaged")
    places = (old.address, new.address)
    target = await stores.bare()
    result = await move(source, target, clock, files=places)
    assert result is not None
    assert result.is_done, "it is as it was"
    assert [finding.broken for finding in result.broken] == [[f"{damaged} (missing)"]]

    def lose(what: str, done: int, total: int) -> None:
        if what == "compare files (target)":
            new.overwrite(whole, b"")

    other = await stores.bare()
    result = await move(source, other, clock, lose, files=places)
    assert result is not None
    assert not result.is_done
    with pytest.raises(SchemaError):
        async with serve(other):
            pass
