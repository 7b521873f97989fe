"""A database that a program of any earlier schema version left is opened by this one, and nothing in it is lost."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from app.core.settings import Settings
from app.core.task import FailureReason, Status
from app.models import migrate
from app.models.database import Database
from app.models.dead_letters import DeadFilter
from app.models.sqlite import connect
from app.services.checker import Checker
from app.services.wiring import open_services
from tests.conftest import SAMPLES
from tests.schemas.keep import FOLDER, live, restored

VERSIONS = sorted(path.stem for path in FOLDER.glob("*.sql"))
ROOT = Path(__file__).parents[2]

Rows = dict[str, list[dict[str, Any]]]


def rows(database: Path) -> Rows:
    """All that is stored, by table."""
    with closing(connect(database)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found: Rows = {}
        for name in names:
            cursor = connection.execute(f"SELECT * FROM {name}")
            columns = [column[0] for column in cursor.description]
            found[name] = [dict(zip(columns, row, strict=True)) for row in cursor]
        return found


def as_before(before: Rows, after: Rows) -> Rows:
    """Of `after`, the tables and columns that there were before."""
    return {
        name: [{column: row[column] for column in old} for old, row in zip(table, after[name], strict=True)]
        for name, table in before.items()
    }


def test_there_is_a_database_of_every_schema_version() -> None:
    """Of a new one too: its program makes it, with `python -m tests.schemas.keep`."""
    scripts = ScriptDirectory(str(ROOT / "app/models/migrations"))
    assert sorted(script.revision for script in scripts.walk_revisions()) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_it_has_tasks_of_every_kind(version: str, tmp_path: Path) -> None:
    restored(version, tmp_path / "tasks.db")
    found = rows(tmp_path / "tasks.db")
    blocked = set() if version >= "0007" else {Status.BLOCKED}
    assert {task["status"] for task in found["tasks"]} == set(Status) - blocked
    reasons = set(FailureReason) - {FailureReason.REJECTED}
    assert {task["failure_reason"] for task in found["tasks"]} == {None, *reasons}
    assert all(found[name] for name in found), [name for name in found if not found[name]]


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_is_brought_up_to_date_with_every_row_as_it_was(version: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    restored(version, path)
    before = rows(path)
    database = Database(f"sqlite:///{path}")
    await database.open()
    findings = [finding async for finding in Checker(database).findings()]
    await database.close()
    after = rows(path)
    assert before.pop("alembic_version") == [{"version_num": version}]
    assert after.pop("alembic_version") == [{"version_num": migrate.HEAD}]
    assert as_before(before, after) == before
    assert {finding.name: finding.broken for finding in findings if finding.broken} == {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_service_goes_on_with_it(version: str, tmp_path: Path) -> None:
    restored(version, tmp_path / "tasks.db")
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/tasks.db", files_dir=tmp_path / "files", executor_modules=(SAMPLES,)
    )
    async with open_services(settings) as services:
        dead = await services.dead_letters.search(DeadFilter(), 100)
        total, groups = await services.dead_letters.groups(DeadFilter(), 100)
        assert sum(group.count for group in groups) == total == len(dead) > 4
        report = await services.dead_letters.requeue(DeadFilter(fingerprint=groups[0].fingerprint), dry_run=False)
        assert report.changed == groups[0].count
        assert {task.task_type for task in dead} == {"echo"}


async def test_what_failed_before_causes_were_stored_gets_the_one_it_would_have_been_given(tmp_path: Path) -> None:
    for version in ("0002", "0003"):
        (tmp_path / version).mkdir()
        restored(version, tmp_path / version / "tasks.db")
    database = Database(f"sqlite:///{tmp_path}/0002/tasks.db")
    await database.open()
    await database.close()
    found, expected = (
        {
            task["id"]: task["fingerprint"]
            for task in rows(tmp_path / version / "tasks.db")["tasks"]
            if task["status"] == Status.FAILED
        }
        for version in ("0002", "0003")
    )
    assert found == expected


async def test_keeping_the_schema_makes_such_a_database(tmp_path: Path) -> None:
    """Or the next who needs it would find that it does not work any more."""
    found = rows(await live(tmp_path))
    assert {task["status"] for task in found["tasks"]} == set(Status)
    database = Database(f"sqlite:///{tmp_path}/tasks.db")
    assert [finding.name async for finding in Checker(database).findings() if finding.broken] == []
    await database.close()
