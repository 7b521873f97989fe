"""What many tests share: a moved clock, a fresh database, the services on it, an HTTP client over the application."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.app import create_app
from app.core.settings import Settings
from app.models.database import Database
from app.services.wiring import Services, open_services
from tests import pgbouncer_server
from tests.file_places import PLACES, BucketPlace, FilePlace, FolderPlace, S3Server
from tests.redis_server import RedisServer
from tests.stores import PostgresDatabases, Stores, postgres_databases

STORES = ("sqlite", "postgres")
WAYS = (*STORES, "pgbouncer")
"""The stores, and PostgreSQL through a pooler in transaction mode."""
SAMPLES = "tests.sample_executors"


class FrozenClock:
    """Stands still until it is moved, and monotonic time with it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self._passed = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self._passed

    def forward(self, seconds: float) -> datetime:
        """Time passes."""
        self._passed += seconds
        return self.set(seconds)

    def set(self, seconds: float) -> datetime:
        """Somebody sets the wall clock, ahead or back."""
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's variables nor a `.env` reach a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("RESERVE_BYTES", "0")  # a thousand databases, with 8 MiB each for nobody


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of the services pass through the pooler in the long form only: its own are those of the statements."""
    if os.environ.get("CHAOS") == "long":
        return
    services = Path(__file__).parent / "services"
    left = [one for one in items if "pgbouncer" in one.name and one.path.is_relative_to(services)]
    config.hook.pytest_deselected(items=left)
    unwanted = set(left)
    items[:] = [one for one in items if one not in unwanted]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with its schema, made once; each test gets a copy, which is much faster than migrating."""
    path = tmp_path_factory.mktemp("migrated") / "tasks.db"

    async def make() -> None:
        database = Database(f"sqlite:///{path}")
        await database.open()
        await database.close()

    asyncio.run(make())
    return path


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One folder for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def postgres(shared_folder: Path) -> Iterator[PostgresDatabases]:
    """Databases on a PostgreSQL server, which is started for the first test that wants one."""
    with postgres_databases(shared_folder / "postgres") as databases:
        yield databases


@pytest.fixture(scope="session")
def pgbouncer(shared_folder: Path) -> Iterator[PostgresDatabases]:
    """Databases on the same server, through PgBouncer."""
    if pgbouncer_server.program() is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("pgbouncer is not installed (Debian: apt install pgbouncer): nothing was tested through a pooler")
    with postgres_databases(shared_folder / "postgres", pooled=True) as databases:
        yield databases


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server for all tests of this process: that of TEST_REDIS_URL, else a private one."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    server = RedisServer().start()
    yield server.url
    server.remove()


@pytest.fixture
async def broker_prefix(redis_url: str) -> AsyncIterator[str]:
    """What the names of a test's streams begin with; they are removed after it."""
    prefix = f"task-service-test-{secrets.token_hex(6)}"
    yield prefix
    async with Redis.from_url(redis_url) as redis:
        names = [name async for name in redis.scan_iter(f"{prefix}:*")]
        if names:
            await redis.delete(*names)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server of the test's own, to be killed, frozen and emptied."""
    server = RedisServer().start()
    yield server
    server.remove()


@pytest.fixture
def store() -> str:
    """The kind of store a test is for. Where the same must hold for each, a conftest.py names `both_stores` instead."""
    return "sqlite"


both_stores = pytest.fixture(name="store", params=WAYS)(lambda request: request.param)
"""Tests run once for each kind of store, and once through a pooler."""


straight = pytest.mark.parametrize("store", STORES)
"""For what a pooler hides or cannot pass on: who else is there, and wake-ups."""


@pytest.fixture
def stores(store: str, tmp_path: Path, migrated: Path, request: pytest.FixtureRequest) -> Stores:
    """Fresh stores of the kind that the test is run for."""
    return Stores(store, tmp_path, migrated, None if store == "sqlite" else request.getfixturevalue(store))


@pytest.fixture
async def database_url(stores: Stores) -> str:
    """A migrated, empty store of the test's own."""
    return await stores.fresh()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server that speaks S3, which is started for the first test of a process that wants one."""
    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def place() -> str:
    """The kind of place a test keeps files in. Where the same must hold for each, it is parametrised by `both_places`."""
    return "folder"


both_places = pytest.fixture(name="place", params=PLACES)(lambda request: request.param)
"""Tests run once for each kind of place of files."""


@pytest.fixture
def file_place(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> FilePlace:
    """An empty place for files of the kind that the test is run for."""
    if place == "folder":
        return FolderPlace(tmp_path / "files")
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return BucketPlace()


@pytest.fixture
def settings(database_url: str, file_place: FilePlace) -> Settings:
    """Settings on a database and a place of files of the test's own, with the sample executors loaded."""
    return Settings(database_url=database_url, executor_modules=(SAMPLES,), **file_place.settings)


@pytest.fixture
async def database(database_url: str, clock: FrozenClock) -> AsyncIterator[Database]:
    """A migrated, empty database on a clock that stands still."""
    database = Database(database_url, clock=clock)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def services(settings: Settings, clock: FrozenClock) -> AsyncIterator[Services]:
    """Everything a process is made of, without the process, on a clock that stands still."""
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
        yield services


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Settings], Any]]:
    """Starts an application inside the test and gives an HTTP client for it."""
    async with AsyncExitStack() as stack:

        async def start(settings: Settings) -> httpx.AsyncClient:
            app = create_app(settings)
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30)
            client.app = app  # type: ignore[attr-defined]  # tests look behind the door now and then
            return await stack.enter_async_context(client)

        yield start


@pytest.fixture
async def client(serve: Callable[[Settings], Any], settings: Settings) -> httpx.AsyncClient:
    """An HTTP client for an application with the default settings."""
    client: httpx.AsyncClient = await serve(settings)
    return client


def engines_of(database: Database) -> list[AsyncEngine]:
    """Everything its statements go through, for tests that listen in."""
    return [value for value in vars(database._store).values() if isinstance(value, AsyncEngine)]


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for `condition` (plain or async) to give something true, and return it; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
