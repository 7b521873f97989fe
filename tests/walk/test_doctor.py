"""`taskctl doctor` where something really is wrong: each trouble is made, and found by its name."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import time_machine
from redis.asyncio import Redis

from app.models import sqlite
from tests.chaos.test_full_disk import fill, small_disk
from tests.conftest import until
from tests.redis_server import RedisServer
from tests.schemas.keep import restored
from tests.walk.conftest import House
from tests.walk.test_old_library import without_the_wheel  # noqa: F401 a fixture
from tests.walk.test_taskctl import found


async def served(house: House, monkeypatch: pytest.MonkeyPatch, **settings: str) -> httpx.AsyncClient:
    """The service that taskctl speaks with: an API and a worker, with nothing wrong but what `settings` make so."""
    _, client = await house.api(**settings)
    await house.worker(**settings)
    monkeypatch.setenv("TASKCTL_URL", str(client.base_url))
    return client


async def test_an_old_sqlite_library(without_the_wheel: House, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    await served(without_the_wheel, monkeypatch)
    old = not sqlite.wal_is_safe(sqlite3.sqlite_version)
    assert await found() == (["unsafe-sqlite"] if old else [])


async def test_a_redis_that_throws_streams_away_and_one_that_is_gone(
    house: House, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(house, monkeypatch, BROKER_URL=redis_server.url)
    assert await found() == []
    async with Redis.from_url(redis_server.url) as redis:
        await redis.config_set("maxmemory", "50mb")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        assert await found() == ["broker-evicts"]
    redis_server.kill()
    assert await found() == ["broker-unavailable"]


async def test_a_clock_that_is_wrong_here(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await served(house, monkeypatch)
    for off in (-60, 60):
        with time_machine.travel(datetime.now(UTC) + timedelta(seconds=off)):
            assert await found() == ["clock-skew"]
    assert await found() == []


async def test_a_disk_that_is_nearly_full_and_one_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "disk", 48) as disk:
        house = House(disk)
        client = await served(house, monkeypatch)
        assert await found() == ["low-disk"]
        fill(disk)
        task = {"task_type": "echo", "payload": {"number": 1}, "metadata": {"text": "x" * 15_000}}

        async def refused() -> bool:
            """What is left in the last pages is used up first."""
            return (await client.post("/tasks", json=task)).status_code == 507

        await until(refused, 40)
        assert await until(lambda: full(), 40) == ["low-disk", "store-unavailable"]
        await house.close()


async def full() -> list[str] | None:
    codes = await found()
    return codes if "store-unavailable" in codes else None


async def test_a_migration_that_is_missing(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await served(house, monkeypatch)
    restored("0005", tmp_path / "old.db")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/old.db")
    monkeypatch.setenv("FILES_DIR", str(tmp_path))
    assert await found("--local") == ["schema-behind"]
