"""A backup made while others write is one moment of the database, whole and checked, or there is none."""

import asyncio
import signal
import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.backup import command
from app.core.errors import StoreError
from app.core.lifecycle import Completed
from app.core.task import JsonText, Status
from app.models import backup
from app.models.sqlite import connect
from app.services import backup as service
from app.services.backup import back_up
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store() -> str:
    return "sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where backups go."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def tell_nobody(part: float) -> None: ...


def number_of_tasks(path: Path) -> int:
    connection = connect(path)
    number: int = connection.execute("SELECT count(*) FROM tasks").fetchone()[0]
    connection.close()
    return number


async def test_the_service_goes_on_with_a_backup_where_it_was(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock, folder: Path
) -> None:
    finished, running, waiting = await submit(), await submit(), await submit(payload={"text": "mine"})
    await settle((await claim(room=1))[0], Completed(JsonText("1")))
    await claim(room=1)
    findings = await back_up(services.database.path, folder / "copy.db", tell_nobody)
    assert len(findings) > 10
    assert [finding for finding in findings if finding.broken] == []
    assert files(folder) == {"copy.db"}
    assert stat.S_IMODE((folder / "copy.db").stat().st_mode) == 0o600
    settings = services.settings.model_copy(update={"database_url": f"sqlite:///{folder}/copy.db"})
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as restored:
        found = [await restored.tasks.get(id_) for id_ in (finished, running, waiting)]
        assert [task.status for task in found] == [Status.COMPLETED, Status.RUNNING, Status.PENDING]
        assert found[2].payload == '{"text":"mine"}'
        new = await restored.tasks.submit(restored.intake.prepare(Submission(task_type="echo")))
        assert new.task.id == waiting + 1


async def test_commits_of_others_neither_wait_for_a_backup_nor_get_into_it_nor_hold_it_up(
    services: Services, submit: Submit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a snapshot that lasts, SQLite would begin again after each."""
    monkeypatch.setattr(backup, "PAGES_A_STEP", 1)
    before = {await submit() for _ in range(20)}
    other = connect(services.database.path, isolation_level=None, check_same_thread=False, timeout=0)
    parts: list[float] = []

    def commit_something(part: float) -> None:
        parts.append(part)
        assert len(parts) < 1000, "it begins again and again"
        other.execute("INSERT INTO queues (name, paused) VALUES (?, 0)", (f"q{len(parts)}",))
        other.execute("DELETE FROM tasks WHERE id = ?", (len(parts),))

    await back_up(services.database.path, folder / "copy.db", commit_something)
    other.close()
    assert parts == sorted(parts)
    assert len(parts) > 20
    copy = connect(folder / "copy.db")
    assert {id_ for (id_,) in copy.execute("SELECT id FROM tasks")} == before
    assert copy.execute("SELECT count(*) FROM queues").fetchone() == (0,)
    copy.close()


async def test_nothing_is_overwritten(services: Services, submit: Submit, folder: Path) -> None:
    target = folder / "copy.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match="there already"):
        await back_up(services.database.path, target, tell_nobody)
    target.unlink()

    def appear(part: float) -> None:
        target.write_text("precious")

    with pytest.raises(StoreError, match="cannot be written: File exists"):
        await back_up(services.database.path, target, appear)
    assert target.read_text() == "precious"
    assert files(folder) == {"copy.db"}


async def test_two_backups_to_one_file_do_not_mix(services: Services, folder: Path) -> None:
    (folder / "copy.db.partial").touch()
    with pytest.raises(StoreError, match="another backup is being made, or one was broken off"):
        await back_up(services.database.path, folder / "copy.db", tell_nobody)
    assert files(folder) == {"copy.db.partial"}


async def test_a_backup_that_fails_leaves_nothing(
    services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(part: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await back_up(services.database.path, folder / "copy.db", fail)
    assert files(folder) == set()

    def no_space(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service, "_sync", no_space)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        await back_up(services.database.path, folder / "copy.db", tell_nobody)
    assert files(folder) == set()


async def test_a_file_system_without_links_will_do(
    services: Services, submit: Submit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("app.services.backup.os.link", refuse)
    await submit()
    await back_up(services.database.path, folder / "copy.db", tell_nobody)
    assert files(folder) == {"copy.db"}
    assert number_of_tasks(folder / "copy.db") == 1


async def test_what_is_broken_is_told_and_the_backup_is_kept(services: Services, submit: Submit, folder: Path) -> None:
    await submit()
    connection = connect(services.database.path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE tasks SET lease = 7")
    connection.close()
    findings = await back_up(services.database.path, folder / "copy.db", tell_nobody)
    assert [finding.name for finding in findings if finding.broken] == ["history"]
    assert files(folder) == {"copy.db"}


async def test_an_older_schema_is_backed_up_too(services: Services, submit: Submit, folder: Path) -> None:
    """The moment before an upgrade is when one wants a backup."""
    await submit()
    connection = connect(services.database.path, isolation_level=None)
    connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    (finding,) = await back_up(services.database.path, folder / "copy.db", tell_nobody)
    assert (finding.name, finding.broken) == ("damage", [])


def run(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(command, [str(one) for one in arguments])
    return ran.exit_code, ran.output


def test_the_command_says_by_its_exit_status_what_came_of_it(migrated: Path, folder: Path) -> None:
    url = f"sqlite:///{migrated}"
    status, output = run(url, folder / "copy.db")
    assert (status, "promises kept, 0 broken." in output) == (0, True)
    assert run(url, folder / "other.db", "--quiet") == (0, "")
    for source, words in (
        (url, "there already"),
        (f"sqlite:///{folder}/none.db", "There is no database"),
        (f"sqlite:///{__file__}", "file is not a database"),
        ("mysql://x", "DATABASE_URL"),
        ("postgresql://somebody:secret@nowhere/tasks", "pg_dump"),
    ):
        status, output = run(source, folder / ("copy.db" if source == url else "new.db"))
        assert (status, words in output) == (2, True), output
    empty = folder / "empty.db"
    connect(empty).close()
    assert "no database of this service" in run(f"sqlite:///{empty}", folder / "new.db")[1]
    assert files(folder) == {"copy.db", "other.db", "empty.db"}


async def test_what_is_broken_is_named_by_the_command(services: Services, submit: Submit, folder: Path) -> None:
    await submit()
    connection = connect(services.database.path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("UPDATE tasks SET payload = '{'")
    connection.close()
    url = f"sqlite:///{services.database.path}"
    status, output = await asyncio.to_thread(run, url, folder / "copy.db", "--quiet")
    assert (status, "BROKEN  what is stored as JSON is JSON: task 1" in output) == (1, True)


async def test_a_backup_that_is_interrupted_ends_at_once_and_leaves_nothing(folder: Path, migrated: Path) -> None:
    """Its thread copies on, and would for as long as a large database takes."""
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts with &\n"
        "from pathlib import Path\n"
        "from app.models import backup\n"
        "backup.PAGES_A_STEP = 1\n"
        "from app import backup as program\n"
        "program._Progress.__call__ = lambda self, part: (print('copying', flush=True), time.sleep(1))\n"
        f"sys.argv = ['backup', 'sqlite:///{migrated}', '{folder}/copy.db']\n"
        "program.command()\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"copying\n"
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):  # a page a second would be more than that for the whole
        assert await process.wait() == 2
    assert files(folder) == set()
