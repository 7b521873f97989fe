import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text

from app.core.lifecycle import Errored
from app.core.settings import Settings
from app.core.task import JsonText
from app.models import migrate
from app.models.database import Database
from app.services import diagnosis
from app.services.diagnosis import PlaceDiagnosis, Report
from app.services.insights import Insights
from app.services.registry import ExecutorRegistry
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.redis_server import RedisServer
from tests.services.conftest import Claim, Settle, Submit
from tests.stores import Stores

PLENTY = 100 * 2**30
EVERYTHING = ["disk", "schema", "store", "workers", "failures", "breakers"]


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """What the disk has free, whatever this machine's has."""

    def make(free: int) -> None:
        monkeypatch.setattr(diagnosis, "_free_bytes", lambda path: free)

    make(PLENTY)
    return make


async def examined(services: Services) -> Report:
    """What is found, but that the tests' own PostgreSQL does not wait for its disk."""
    report = await services.diagnosis.examine()
    return Report(report.checked, [one for one in report.findings if one.code != "unsafe-postgresql"])


async def codes(services: Services) -> list[str]:
    return [one.code for one in (await examined(services)).findings]


async def worker(services: Services, *queues: str, task_types: tuple[str, ...] = ("echo",)) -> Any:
    return await services.workers.sign_in("w", queues, task_types, 1)


async def test_a_service_that_works_has_no_findings(services: Services, submit: Submit, store: str) -> None:
    await worker(services)
    await submit()
    report = await examined(services)
    first = "sqlite" if store == "sqlite" else "postgresql"
    assert (report.checked, report.findings) == ([first, *EVERYTHING], [])


async def broker_codes(services: Services, url: str) -> list[str]:
    """What is found of the broker alone."""
    settings = services.settings.model_copy(update={"broker_url": SecretStr(url), "broker_prefix": "task-service-test"})
    found = await PlaceDiagnosis(services.database, settings, services.insights).examine()
    assert "broker" in found.checked
    return [one.code for one in found.findings if one.code.startswith("broker")]


async def test_a_broker_that_is_away_full_or_forgetful_is_a_finding(
    services: Services, redis_server: RedisServer
) -> None:
    assert await broker_codes(services, redis_server.url) == []
    async with Redis.from_url(redis_server.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        await redis.config_set("maxmemory", "50mb")
        assert await broker_codes(services, redis_server.url) == ["broker-evicts"]
        await redis.config_set("maxmemory-policy", "noeviction")
        assert await broker_codes(services, redis_server.url) == []
        await redis.config_set("maxmemory", "1")
        assert await broker_codes(services, redis_server.url) == ["broker-unavailable"]
    redis_server.kill()
    assert await broker_codes(services, redis_server.url) == ["broker-unavailable"]


async def test_waiting_tasks_are_matched_with_the_workers_there_are(
    services: Services, submit: Submit, clock: FrozenClock
) -> None:
    assert await codes(services) == ["no-worker"]
    await worker(services, "a")
    await submit(queue="a")
    assert await codes(services) == []
    await submit(queue="b")
    await submit(queue="a", task_type="echo_shared")
    assert await codes(services) == ["unserved-task-type", "unserved-queue"]


async def test_a_delayed_task_waits_for_nobody_until_it_is_due(
    services: Services, submit: Submit, clock: FrozenClock
) -> None:
    await worker(services, "a")
    await submit(queue="b", scheduled_at=clock.now.replace(year=2027))
    assert await codes(services) == []
    clock.now = clock.now.replace(year=2028)
    await worker(services, "a")
    report = await examined(services)
    (found,) = report.findings
    assert found.code == "unserved-queue"
    assert "1 task of type echo in queue b since 2027-01-02" in found.what


async def test_the_tasks_of_a_paused_queue_wait_on_purpose(services: Services, submit: Submit) -> None:
    await worker(services, "a")
    await submit(queue="b")
    async with services.database.write() as connection:
        await connection.execute(text("INSERT INTO queues (name, paused) VALUES ('b', true)"))
    assert await codes(services) == []


async def test_a_worker_that_stops_takes_no_more(services: Services, submit: Submit) -> None:
    row = await worker(services)
    await services.workers.beat(row, "stopping", JsonText("[]"))
    await submit()
    assert await codes(services) == ["no-worker"]


async def test_a_silent_worker_is_told_before_it_is_forgotten(services: Services, clock: FrozenClock) -> None:
    await worker(services)
    clock.forward(20)
    assert await codes(services) == ["no-worker", "worker-silent"]
    clock.forward(-30)
    assert await codes(services) == ["worker-clock-ahead"]


async def test_dead_letters_that_pile_up_are_told(
    services: Services, submit: Submit, claim: Claim, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker(services)
    monkeypatch.setattr("app.core.diagnosis.MANY_DEAD_LETTERS", 2)
    for _ in range(2):
        await submit()
        (task,) = await claim()
        await settle(task, Errored("ValueError", "no", None, retryable=False))
    assert await codes(services) == ["dead-letters"]


async def test_an_open_breaker_is_told_with_what_it_holds_back(services: Services, submit: Submit) -> None:
    await worker(services)
    await services.breakers.trip("echo", "being mended", 60)
    await submit()
    (found,) = (await examined(services)).findings
    assert found.code == "breaker-open"
    assert "holds back 1 task: being mended" in found.what


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_disk_with_little_room_is_told_once_for_both_folders(
    services: Services, room: Callable[[int], None]
) -> None:
    await worker(services)
    room(5 * 2**20)
    (found,) = (await examined(services)).findings
    assert found.code == "low-disk"
    assert str(services.database.path.parent) in found.what


@pytest.mark.parametrize(("store", "code"), [("sqlite", "unsafe-sqlite"), ("postgres", "unsafe-postgresql")])
async def test_what_must_not_be_trusted_to_keep_tasks_is_told(
    services: Services, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    await worker(services)
    about = dict.fromkeys(("sqlite", "sqlite_warning", "postgresql", "postgresql_warning"), "1")
    monkeypatch.setattr(Database, "about", lambda self: about)
    assert [one.code for one in (await services.diagnosis.examine()).findings] == [code]


@pytest.mark.parametrize(("version", "code"), [("0001", "schema-behind"), ("9999", "schema-ahead")])
async def test_a_schema_that_changed_under_a_running_service_is_told(
    services: Services, version: str, code: str
) -> None:
    await worker(services)
    async with services.database.write() as connection:
        await connection.execute(text(f"UPDATE alembic_version SET version_num = '{version}'"))
    assert await codes(services) == [code]


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_store_that_takes_no_write_is_a_finding_and_the_last(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with services.database.write() as connection:
        await connection.execute(text("PRAGMA max_page_count = 1"))
    monkeypatch.setattr("app.services.insights.PROBE_STANDS_SECONDS", -1)

    async def full(self: Database) -> None:
        async with self.write() as connection:
            await connection.execute(text("CREATE TABLE more (data BLOB)"))
            await connection.execute(text("INSERT INTO more VALUES (zeroblob(1000000))"))

    monkeypatch.setattr(Database, "write_nothing", full)
    report = await services.diagnosis.examine()
    assert report.checked == ["sqlite", *EVERYTHING[:3]], "what cannot be asked is not said to have been looked at"
    (found,) = report.findings
    assert found.code == "store-unavailable"
    assert "disk of the database is full" in found.what


def place(path: Path) -> tuple[Database, PlaceDiagnosis]:
    settings = Settings(database_url=f"sqlite:///{path}", files_dir=path.parent / "files")
    database = Database(settings.database_url)
    return database, PlaceDiagnosis(database, settings, Insights(database, settings, ExecutorRegistry({})))


async def test_a_place_without_a_database_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    database, examined = place(tmp_path / "deep" / "tasks.db")
    report = await examined.examine()
    await database.close()
    assert [one.code for one in report.findings] == ["no-database"]
    assert list(tmp_path.iterdir()) == [], "looking made nothing"


async def test_a_sound_place_has_no_findings(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "tasks.db")
    database, examined = place(tmp_path / "tasks.db")
    report = await examined.examine()
    await database.close()
    assert (report.checked, report.findings) == (["sqlite", *EVERYTHING[:3]], [])


async def test_a_database_that_is_none_of_ours_is_behind(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").touch()
    database, examined = place(tmp_path / "tasks.db")
    report = await examined.examine()
    await database.close()
    assert [one.code for one in report.findings] == ["schema-behind"]
    assert migrate.HEAD in report.findings[0].what


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("not a database, " * 100)
    database, examined = place(tmp_path / "tasks.db")
    report = await examined.examine()
    await database.close()
    assert [one.code for one in report.findings] == ["store-unavailable"]
    assert "not a database" in report.findings[0].what


@pytest.mark.parametrize("store", ["postgres"])
async def test_a_server_that_is_not_there_is_told(stores: Stores, tmp_path: Path) -> None:
    settings = Settings(database_url=await stores.nowhere(), files_dir=tmp_path / "files")
    database = Database(settings.database_url)
    report = await PlaceDiagnosis(database, settings, Insights(database, settings, ExecutorRegistry({}))).examine()
    await database.close()
    (found,) = report.findings
    assert (report.checked, found.code) == (["postgresql"], "store-unavailable")
    assert "does not exist" in found.what
