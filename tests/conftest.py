"""What many tests share: a moved clock, a fresh database, the services on it, an HTTP client over the application."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.app import create_app
from app.core.settings import Settings
from app.models.database import Database
from app.services.wiring import Services, open_services

SAMPLES = "tests.sample_executors"


class FrozenClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's variables nor a `.env` reach a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


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


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    """Settings on a database of the test's own, with the sample executors loaded."""
    shutil.copy(migrated, tmp_path / "tasks.db")
    return Settings(
        database_url=f"sqlite:///{tmp_path}/tasks.db", files_dir=tmp_path / "files", executor_modules=(SAMPLES,)
    )


@pytest.fixture
async def database(tmp_path: Path, migrated: Path, clock: FrozenClock) -> AsyncIterator[Database]:
    """A migrated, empty database on a clock that stands still."""
    shutil.copy(migrated, tmp_path / "tasks.db")
    database = Database(f"sqlite:///{tmp_path}/tasks.db", clock=clock)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def services(settings: Settings, clock: FrozenClock) -> AsyncIterator[Services]:
    """Everything a process is made of, without the process, on a clock that stands still."""
    async with open_services(settings, clock=clock) as services:
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
