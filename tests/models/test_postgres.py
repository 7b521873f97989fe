"""What is PostgreSQL's alone: sessions and their limits, connections that are lost, commits whose answer is, poolers, its clock."""

import asyncio
import gc
import re
import secrets
import socket
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import time_machine
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.errors import OutcomeUnknown, SchemaError, StoreError, StoreUnavailable
from app.core.task import JsonText
from app.models import postgres, postgres_store, queue, tables, tasks
from app.models.database import Database
from app.models.postgres import shown
from app.models.postgres_store import PostgresStore
from tests.conftest import FrozenClock, until
from tests.models.conftest import STEP, Insert, new_task
from tests.proxy import Pooler, Proxy
from tests.stores import Stores


@pytest.fixture
def store() -> str:
    return "postgres"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: Proxy) -> AsyncIterator[Database]:
    """The database through the proxy."""
    database = Database(proxy.url)
    await database.open()
    yield database
    proxy.thaw()
    await database.close()


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another way to the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives up early."""
    for module in (postgres, postgres_store):
        monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.5)
    monkeypatch.setattr(postgres_store, "CLIENT_DEADLINE_SECONDS", 0.5)
    yield
    # A connection that was given up while it was made closes when it is collected, and the driver complains of that: here, and
    # not in whichever test comes next.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def shown_setting(database: Database, name: str, *, durable: bool = True) -> Any:
    async with database.write(durable=durable) as connection:
        return await connection.scalar(text(f"SELECT current_setting('{name}')"))


async def count(database: Database) -> int:
    async with database.read() as connection:
        return await connection.scalar(text("SELECT count(*) FROM tasks")) or 0


async def store_one(database: Database, **fields: Any) -> list[int]:
    async with database.write() as connection:
        ids, _ = await tasks.insert_new(connection, [new_task(**fields)], database.clock()(), STEP)
    return ids


# Sessions.


async def test_a_session_gives_up_what_takes_long(database: Database) -> None:
    assert await shown_setting(database, "lock_timeout") == "4s"
    assert await shown_setting(database, "statement_timeout") == "5s"
    assert await shown_setting(database, "idle_in_transaction_session_timeout") == "10s"
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT current_setting('statement_timeout')")) == "5s"


async def test_only_durable_writes_wait_for_the_disk(database: Database, database_url: str) -> None:
    assert await shown_setting(database, "synchronous_commit", durable=True) == "on"
    assert await shown_setting(database, "synchronous_commit", durable=False) == "off"
    assert await shown_setting(database, "synchronous_commit", durable=True) == "on"
    relaxed = Database(database_url, durability="relaxed")
    await relaxed.open()
    assert await shown_setting(relaxed, "synchronous_commit", durable=True) == "off"
    await relaxed.close()


async def test_a_server_that_does_not_wait_for_the_disk_by_default_does_for_us(
    stores: Stores, server: asyncpg.Connection, database_url: str
) -> None:
    name = await server.fetchval("SELECT current_database()")
    await server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = Database(database_url)
    await database.open()
    assert await shown_setting(database, "synchronous_commit", durable=True) == "on"
    await database.close()
    await server.execute(f"ALTER DATABASE {name} RESET synchronous_commit")


async def test_a_server_that_never_syncs_is_told_of(database: Database, server: asyncpg.Connection) -> None:
    """The tests' own server does not; one of a distribution does."""
    syncs = await server.fetchval("SELECT current_setting('fsync')")
    assert ("postgresql_warning" in database.about()) is (syncs == "off")
    assert re.fullmatch(r"\d+\.\d+", database.about()["postgresql"])


async def test_a_statement_that_takes_long_is_given_up(database: Database, server: asyncpg.Connection) -> None:
    name = await server.fetchval("SELECT current_database()")
    async with database.write() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '50ms'"))
        with pytest.raises(Exception, match="statement timeout") as failure:
            await connection.execute(text("SELECT pg_sleep(20)"))
        assert isinstance(database._store.told(failure.value), StoreUnavailable)
        await connection.rollback()
    assert name


async def test_tools_may_take_their_time(database_url: str) -> None:
    database = Database(database_url, patient=True)
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT current_setting('statement_timeout')")) == "0"
        assert await connection.scalar(text("SELECT current_setting('enable_hashjoin')")) == "on"
    await database.close()


async def test_the_kernel_is_told_to_notice_a_host_that_is_gone(database: Database) -> None:
    async with database.read() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        wire = driver._transport.get_extra_info("socket")
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


async def test_what_failed_cannot_be_committed_by_going_on_regardless(database: Database) -> None:
    async def go_on() -> None:
        async with database.write() as connection:
            await tasks.insert_new(connection, [new_task()], database.clock()(), STEP)
            with pytest.raises(Exception, match="division by zero"):
                await connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(Exception, match=r"was undone|transaction is aborted"):
        await go_on()
    assert await count(database) == 0


# Connections.


@pytest.mark.usefixtures("hasty")
async def test_who_waits_for_a_connection_gets_an_error_and_never_hangs(database_url: str) -> None:
    database = Database(database_url, connections=2)
    await database.open()
    release = asyncio.Event()
    held: list[None] = []

    async def hold() -> None:
        while not release.is_set():
            with suppress(StoreUnavailable):  # a busy machine may take too long to connect
                async with database.write() as connection:
                    await connection.execute(text("SELECT 1"))
                    held.append(None)
                    await release.wait()

    holders = [asyncio.create_task(hold()) for _ in range(2)]
    await until(lambda: len(held) == 2)
    began = time.monotonic()
    answers = await asyncio.gather(*(count(database) for _ in range(100)), return_exceptions=True)
    assert time.monotonic() - began < 5
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert "no connection became free" in str(answers[0])
    release.set()
    await asyncio.gather(*holders)
    assert await count(database) == 0
    await database.close()


async def test_connections_that_the_server_closed_are_replaced_unnoticed(
    far: Database, server: asyncpg.Connection, insert: Insert
) -> None:
    await asyncio.gather(*(count(far) for _ in range(5)))
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def all_heard() -> bool:
        pool: Any = far._store._engine.pool  # type: ignore[attr-defined]
        return all(record.dbapi_connection._connection.is_closed() for record in list(pool._pool._queue._queue))

    await until(all_heard)
    for _ in range(3):
        assert await count(far) == 0
        await store_one(far)
        async with far.write() as connection:
            await connection.execute(text("DELETE FROM tasks"))


async def test_a_connection_that_is_lost_in_a_transaction_undoes_it(far: Database, proxy: Proxy) -> None:
    async def lose() -> None:
        async with far.write() as connection:
            await tasks.insert_new(connection, [new_task()], far.clock()(), STEP)
            proxy.cut()
            await connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        await lose()
    assert await count(far) == 0
    await store_one(far)
    assert await count(far) == 1


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_falls_silent_is_an_error_and_never_a_hang(proxy: Proxy) -> None:
    database = Database(proxy.url)
    await database.open()
    proxy.freeze()
    began = time.monotonic()
    answers = await asyncio.gather(*(store_one(database) for _ in range(8)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    with pytest.raises(StoreUnavailable):
        await count(database)
    assert time.monotonic() - began < 10
    proxy.thaw()

    async def healed() -> bool:
        try:
            return bool(await store_one(database))
        except StoreUnavailable:
            return False

    await until(healed)
    await database.close()


async def test_a_server_that_is_away_and_comes_back(far: Database, proxy: Proxy) -> None:
    proxy.refuses = True
    proxy.cut()
    with pytest.raises(StoreUnavailable):
        await store_one(far)
    with pytest.raises(StoreUnavailable):
        await count(far)
    proxy.refuses = False
    await store_one(far)
    assert await count(far) == 1


async def test_a_cancelled_call_leaves_no_statement_behind_and_a_connection_that_works(
    database: Database, server: asyncpg.Connection
) -> None:
    async def sleep() -> None:
        async with database.write() as connection:
            await connection.execute(text("SELECT pg_sleep(4.5)"))

    async def sleepers() -> int:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(4.5)' AND state = 'active' AND pid <> pg_backend_pid()"
        found: int = await server.fetchval(asked)
        return found

    sleeper = asyncio.create_task(sleep())
    await until(sleepers)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper

    async def nobody() -> bool:
        return await sleepers() == 0

    await until(nobody, 3)
    assert await count(database) == 0


# A commit whose answer is lost.


async def test_a_commit_that_was_carried_out_is_found_out(far: Database, proxy: Proxy) -> None:
    proxy.cut_at_commit("after")
    await store_one(far)
    assert proxy.cuts == 1
    assert await count(far) == 1


async def test_a_commit_that_never_arrived_is_found_out(far: Database, proxy: Proxy) -> None:
    proxy.cut_at_commit("before")
    with pytest.raises(StoreUnavailable) as failure:
        await store_one(far)
    assert not isinstance(failure.value, OutcomeUnknown)
    assert await count(far) == 0


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_of_which_nobody_can_be_asked_is_said_to_be_unknown(proxy: Proxy, when: Any) -> None:
    database = Database(proxy.url)
    await database.open()
    proxy.cut_at_commit(when)

    async def store_and_go() -> None:
        async with database.write() as connection:
            await tasks.insert_new(connection, [new_task()], database.clock()(), STEP)
            proxy.refuses = True

    with pytest.raises(OutcomeUnknown, match="lost during the commit"):
        await store_and_go()
    proxy.refuses = False
    assert await count(database) == (1 if when == "after" else 0)
    await database.close()


async def test_what_wrote_nothing_has_nothing_to_lose(far: Database, proxy: Proxy) -> None:
    proxy.cut_at_commit("before")
    async with far.write() as connection:
        await connection.execute(text("SELECT 1"))
    assert proxy.cuts == 1


# Poolers.


@pytest.fixture
async def pooled(database_url: str) -> AsyncIterator[Database]:
    async with Pooler(database_url) as pooler:
        database = Database(pooler.url)
        await database.open()
        yield database
        await database.close()


async def test_a_pooler_is_noticed_and_nobody_listens_through_it(pooled: Database, database: Database) -> None:
    assert "pooler" in pooled.about()["postgresql"]
    assert pooled.line() is None
    assert database.line() is not None


async def test_through_a_pooler_every_transaction_has_its_settings(pooled: Database) -> None:
    assert await shown_setting(pooled, "lock_timeout") == "4s"
    assert await shown_setting(pooled, "synchronous_commit", durable=False) == "off"
    assert await shown_setting(pooled, "enable_seqscan") == "off"
    async with pooled.read() as connection:
        assert await connection.scalar(text("SELECT current_setting('statement_timeout')")) == "5s"


async def test_through_a_pooler_statements_keep_together_and_leave_nothing(
    pooled: Database, server: asyncpg.Connection
) -> None:
    async def work(number: int) -> None:
        for _ in range(10):
            await store_one(pooled, unique_key=f"{number}-{_}")
            assert await count(pooled) > 0

    await asyncio.gather(*(work(number) for number in range(5)))
    assert await count(pooled) == 50
    async with pooled.write() as connection:
        # A server connection of the pooler keeps what was prepared on it until it is closed.
        assert await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")) == 0


# Time.


async def test_a_host_whose_clock_is_wrong_goes_by_the_servers(database_url: str, server: asyncpg.Connection) -> None:
    for minutes in (10, -10):
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes), tick=True):
            database = Database(database_url)
            await database.open()
            there = await server.fetchval("SELECT clock_timestamp()")
            assert abs((database.clock()() - there).total_seconds()) < 2
            await database.close()


async def test_the_clock_is_compared_again_and_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_store, "REFRESH_SECONDS", 0.01)
    database = Database(database_url)
    await database.open()
    assert isinstance(database._store, PostgresStore)
    clock = database._store._clock
    right = database.clock()()
    clock._zero = right - timedelta(hours=1) - timedelta(seconds=clock.steady())
    await until(lambda: abs(database.clock()() - right) < timedelta(minutes=1))
    await database.close()


# The start.


async def refusal(url: str) -> str:
    database = Database(url)
    with pytest.raises(StoreError) as failure:
        await database.open()
    await database.close()
    assert "\n" not in str(failure.value)
    return str(failure.value)


async def test_what_cannot_be_reached_or_used_is_one_clear_line(stores: Stores, database_url: str) -> None:
    assert "does not exist" in await refusal(await stores.nowhere())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert "connection refused" in await refusal(f"postgresql://u:secret@127.0.0.1:{port}/d")
    assert "no such host" in await refusal("postgresql://u:secret@no-such-host.invalid/d")


async def test_a_password_is_never_shown(server: asyncpg.Connection, database_url: str) -> None:
    for url in (
        "postgresql://u:sec%2Fret@127.0.0.1:1/d",
        "postgresql://u:sec/ret@127.0.0.1:1/d",
        "postgresql://u:sec@ret@127.0.0.1:1/d",
        "postgresql://u:sec:ret@127.0.0.1:1/d?password=secret",
        "postgres://u:sec?ret@127.0.0.1:1/d",
    ):
        assert not re.search("sec|ret", await refusal(url)), url
    assert shown("postgresql+asyncpg://u:secret@h1:1,h2:2/d?sslmode=require") == "postgresql+asyncpg://u@h1:1,h2:2/d"


async def test_a_wrong_password_is_told(server: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise asyncpg.InvalidPasswordError('password authentication failed for user "u"')

    monkeypatch.setattr(asyncpg, "connect", refuse)
    assert await refusal("postgresql://u:secret@h/d") == (
        'The database postgresql://u@h/d cannot be used: password authentication failed for user "u"'
    )


async def test_a_server_that_is_too_old_is_told_by_its_version(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_store, "OLDEST_SERVER", 99)
    assert re.search(r"is PostgreSQL \d+\.\d+; this program needs 99 or newer", await refusal(database_url))


async def test_a_table_that_is_somebody_elses_is_refused(stores: Stores) -> None:
    url = await stores.bare()
    other = await asyncpg.connect(url)
    await other.execute("CREATE TABLE tasks (x integer)")
    await other.close()
    database = Database(url)
    with pytest.raises(SchemaError, match="did not make"):
        await database.open()
    await database.close()


async def test_a_user_needs_a_schema_of_his_own_and_nothing_more(stores: Stores) -> None:
    url = await stores.bare()
    name = f"task_service_test_{secrets.token_hex(4)}"
    owner = await asyncpg.connect(url)
    await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'; REVOKE CREATE ON SCHEMA public FROM public")
    theirs = url.replace("postgresql://", f"postgresql://{name}:x@", 1).replace("postgres@", "", 1)
    try:
        assert "permission denied for schema public" in await refusal(theirs)
        await owner.execute(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        database = Database(theirs)
        await database.open()
        await store_one(database)
        await database.write_nothing()
        assert await count(database) == 1
        await database.close()
    finally:
        await owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
        await owner.close()


# The schema.


async def test_the_migrations_make_exactly_the_tables_of_the_code(stores: Stores, database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return [one for one in compare_metadata(context, tables.metadata) if "alembic_version" not in str(one)]

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
        migrated = await made(connection)
    other = create_async_engine((await stores.bare()).replace("postgresql:", "postgresql+asyncpg:"))
    async with other.begin() as connection:
        await connection.run_sync(tables.metadata.create_all)
        assert await made(connection) == migrated
    await other.dispose()


async def made(connection: Any) -> set[str]:
    """Every index and every constraint, as the server writes them."""
    indexes = await connection.scalars(text("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"))
    constraints = await connection.scalars(
        text(
            "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            " AND contype <> 'n'"
        )
    )
    return {
        one for one in (*indexes, *constraints) if "alembic_version" not in one and "alembic_version_pkc" not in one
    }


async def test_what_changes_often_is_vacuumed_often(database: Database) -> None:
    async with database.read() as connection:
        found = dict(
            (await connection.execute(text("SELECT relname, reloptions FROM pg_class WHERE reloptions <> '{}'"))).all()
        )
    assert "autovacuum_vacuum_scale_factor=0.01" in found["tasks"]
    assert "fillfactor=90" in found["tasks"]
    assert "fillfactor=50" in found["workers"]


async def test_progress_writes_no_index(
    database: Database, insert: Insert, claim: Any, server: asyncpg.Connection
) -> None:
    """It changes no indexed column, so the row can stay where the indexes point."""
    await insert()
    (task,) = await claim()
    async with database.write() as connection:
        for percent in range(5):
            await queue.save_progress(connection, [(task.id, task.lease, JsonText(str(percent)))])
        hot = await connection.scalar(text("SELECT pg_stat_get_xact_tuples_hot_updated('tasks'::regclass)"))
    assert hot == 5


async def test_ids_come_in_the_order_of_the_request_and_never_twice(database: Database, clock: FrozenClock) -> None:
    async with database.write() as connection:
        first, _ = await tasks.insert_new(connection, [new_task() for _ in range(500)], clock(), STEP)
    assert first == sorted(first)

    async def fail() -> None:
        async with database.write() as connection:
            await tasks.insert_new(connection, [new_task()], clock(), STEP)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await store_one(database) == [first[-1] + 2]


async def test_a_read_is_one_message_and_a_write_no_more_than_it_needs(database: Database) -> None:
    seen: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    async with database.read() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        driver.add_query_logger(lambda record: seen.append(record.query))
        event.listen(connection.sync_connection, "before_cursor_execute", executed)
        await tasks.get_many(connection, [1])
    assert [one for one in seen if one.startswith(("BEGIN", "COMMIT", "ROLLBACK"))] == []
