"""The checker finds what is broken, each fault by its own check, and nothing in a database that is sound."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from app.check import command
from app.core.errors import StoreError
from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Released, Snoozed, TimedOut
from app.core.task import JsonText
from app.models import tables
from app.models.checks import CHECKS
from app.models.database import Database
from app.models.sqlite import sqlite
from app.services.checker import Checker
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle
from tests.stores import Stores

Edit = Callable[..., Awaitable[int]]

OUTCOMES = (
    Completed(JsonText('{"a":1}')),
    Errored("E", "for good", retryable=False),
    Errored("E", "again"),
    TimedOut(5),
    Lost("killed"),
    Cancelled(),
    Released("stopped"),
    Snoozed(60),
)


@pytest.fixture
async def used(services: Services, claim: Claim, settle: Settle, clock: FrozenClock) -> Services:
    """A service that has seen every outcome, retries, a file, a checkpoint, and has something of everything now."""
    async with await services.files.receive() as reception:
        await reception.write(b"data")
        file = await reception.finish("a", None)
    payload = {"file_id": file.id}
    for number in range(len(OUTCOMES) + 2):
        asked = {"task_type": "copy_file", "payload": payload, "unique_key": f"u{number}", "retry": {"base_seconds": 1}}
        await services.tasks.submit(services.intake.prepare(Submission.model_validate(asked), f"k{number}"))
    for task, outcome in zip(await claim(room=len(OUTCOMES)), OUTCOMES, strict=True):
        await services.queue.add_checkpoint(task.id, task.lease, JsonText("1"))
        await settle(task, outcome, checkpointed=True)
    await services.tasks.retry(2)
    await services.tasks.cancel(9)
    clock.forward(10)
    for task in await claim(room=2):
        await settle(task, Errored("E", "once more"))
    await claim(room=1)
    return services


@pytest.fixture
async def edit(services: Services, stores: Stores) -> AsyncIterator[Edit]:
    """What somebody does who opens the store by other means, where no constraint binds. Returns the rows last changed."""
    if services.database.path is not None:
        connection = sqlite.connect(services.database.path, isolation_level=None)
        connection.execute("PRAGMA ignore_check_constraints = ON")

        async def change(*statements: str) -> int:
            return [connection.execute(statement).rowcount for statement in statements][-1]

        yield change
        connection.close()
        return

    stores.spoilt()
    server = await asyncpg.connect(stores.straight(services.settings.database_url))
    await server.execute("SET session_replication_role = replica")  # no foreign keys
    for constraint in [str(one.name) for table in (tables.tasks, tables.task_files) for one in table.constraints]:
        if constraint.startswith("ck_"):
            table = "tasks" if constraint.startswith("ck_tasks") else "task_files"
            await server.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")

    async def change_rows(*statements: str) -> int:
        tags = [await server.execute(statement) for statement in statements]
        return int(re.sub(r"\D", "", tags[-1].rpartition(" ")[2]) or 0)

    yield change_rows
    await server.close()


async def broken(services: Services, **options: object) -> dict[str, list[str]]:
    checker = Checker(services.database, **options)  # type: ignore[arg-type]
    return {finding.name: finding.broken async for finding in checker.findings() if finding.broken}


async def test_a_sound_database_is_found_sound(used: Services) -> None:
    assert await broken(used, files=used.settings.files_place) == {}


BREAKS = {
    "status": "UPDATE tasks SET status = 'lost in thought' WHERE id = 8",
    "lease": "UPDATE tasks SET worker_id = NULL WHERE status = 'running'",
    "end": "UPDATE tasks SET finished_at = NULL WHERE id = 1",
    "reason": "UPDATE tasks SET fingerprint = NULL, failure_reason = NULL WHERE status = 'failed'",
    "result": "UPDATE tasks SET result = NULL WHERE id = 1",
    "moment": "UPDATE tasks SET scheduled_at = NULL WHERE id = 8",
    "attempts": "UPDATE tasks SET attempts = 4 WHERE id = 3",
    "places": "UPDATE tasks SET concurrency_key = 'k', concurrency_limit = 1",
    "history": "DELETE FROM task_attempts WHERE task_id = 5 AND lease = 1",
    "times": "UPDATE tasks SET finished_at = started_at - 1 WHERE id = 1",
    "json": "UPDATE tasks SET payload = '{' WHERE id = 10",
    "unique key": "UPDATE tasks SET unique_key = 'u9' WHERE id = 8",
    "idempotency key": "UPDATE tasks SET idempotency_key = 'k1' WHERE id = 8",
    "checkpoints": "INSERT INTO checkpoints VALUES (1, 1, '1')",
    "kept files": "DELETE FROM task_files",
    "tenants": "UPDATE tasks SET tenant = 'north' WHERE id = 1",
    "temporary files": "UPDATE task_files SET role = 'temporary' WHERE task_id = 1",
}


@pytest.mark.parametrize("name", BREAKS)
async def test_each_fault_is_found_by_its_own_check(
    used: Services, claim: Claim, settle: Settle, edit: Edit, name: str
) -> None:
    for task in await claim(room=1):
        await settle(task, Errored("E", "no", retryable=False))
    await edit("DROP INDEX uq_tasks_unique_key", "DROP INDEX uq_tasks_idempotency_key")
    assert await edit(BREAKS[name]) > 0
    # A word that is none of ours is also nothing that we could read.
    assert set(await broken(used)) - ({"text"} if name == "status" else set()) == {name}


@pytest.mark.parametrize("store", ["sqlite"])
async def test_rows_that_cannot_be_read_are_named(used: Services, edit: Edit) -> None:
    """Nothing of this is damage to the library itself."""
    changed = await edit(
        "UPDATE tasks SET resolution = CAST(x'61ff62' AS TEXT) WHERE id = 8",
        "UPDATE tasks SET tags = CAST(tags AS BLOB) WHERE id = 9",
        "UPDATE tasks SET expires_at = 'soon' WHERE id = 10",
        "UPDATE task_attempts SET worker_id = CAST(worker_id AS BLOB) WHERE task_id = 2 AND lease = 1",
    )
    assert changed == 1
    found = await broken(used)
    assert found == {"text": ["tasks 8", "tasks 9", "tasks 10", "task_attempts 2/1"]}


async def test_the_same_keys_of_two_tenants_are_sound(used: Services) -> None:
    for tenant in ("north", "south"):
        asked = Submission.model_validate({"task_type": "echo", "unique_key": "u9"})
        await used.tasks.submit(used.intake.prepare(asked, "k1", tenant=tenant))
    assert await broken(used) == {}


async def test_every_check_is_tried() -> None:
    assert {check.name for check in CHECKS if not check.final} == {*BREAKS, "orphans"}


async def test_rows_of_missing_tasks_are_found(used: Services, edit: Edit) -> None:
    await edit("INSERT INTO checkpoints VALUES (99, 1, '1')")
    found = await broken(used)
    if used.database.path is not None:
        assert "refers to a missing row of tasks" in found["damage"][0]
    else:
        assert found == {"orphans": ["99"]}


async def test_what_is_not_done_is_wrong_only_at_the_end(used: Services) -> None:
    found = await broken(used, final=True)
    assert set(found) == {"unfinished"}
    assert "10" in found["unfinished"]


async def test_what_clients_were_told_is_compared(used: Services, tmp_path: Path) -> None:
    journal = tmp_path / "told.jsonl"
    lines = [{"id": 1, "key": "k0"}, {"id": 77, "key": "k1"}, {"id": 2, "key": "k0"}, {"id": 3}]
    journal.write_text("\n".join(json.dumps(line) for line in lines))
    assert await broken(used, acknowledged=journal) == {"acknowledged": ["77"], "once": ["k0"]}
    journal.write_text("nonsense\n")
    with pytest.raises(StoreError, match="cannot be read"):
        await broken(used, acknowledged=journal)


async def test_files_that_are_gone_or_changed_are_found(used: Services) -> None:
    (path,) = [path for path in used.settings.files_dir.rglob("*") if path.is_file()]
    path.write_bytes(b"DATA")
    assert await broken(used, files=used.settings.files_place) == {"files": [f"{path.name} (changed)"]}
    path.unlink()
    assert await broken(used, files=used.settings.files_place) == {"files": [f"{path.name} (missing)"]}


def run(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(command, arguments)
    return ran.exit_code, ran.output


async def test_a_broken_promise_is_named_with_its_tasks(used: Services, edit: Edit) -> None:
    await edit(BREAKS["result"])
    status, output = await asyncio.to_thread(run, used.settings.database_url, "--quiet")
    assert status == 1
    assert "BROKEN  a completed task has a result, and no other has: task 1" in output


async def test_programs_get_all_that_breaks_a_promise(used: Services, edit: Edit) -> None:
    await edit(BREAKS["result"])
    status, output = await asyncio.to_thread(run, used.settings.database_url, "--json")
    told = [json.loads(line) for line in output.splitlines()]
    assert (status, len(told)) == (1, len(CHECKS) + 1)
    assert [(one["name"], one["broken"]) for one in told if one["broken"]] == [("result", ["1"])]


async def test_the_command_says_by_its_exit_status_what_it_found(stores: Stores) -> None:
    url = await stores.fresh()
    status, output = await asyncio.to_thread(run, url, "--final")
    assert (status, output.splitlines()[-1]) == (0, f"{len(CHECKS) + 2} promises kept, 0 broken.")
    assert await asyncio.to_thread(run, url, "--quiet") == (0, "")
    status, output = await asyncio.to_thread(run, await stores.nowhere())
    assert status == 2
    assert re.search("There is no database at|database .* does not exist", output)
    assert len(output.splitlines()) == 1
    assert (await asyncio.to_thread(run, "mysql://x"))[0] == 2


async def test_a_store_without_our_tables_is_not_checked(stores: Stores) -> None:
    url = await stores.bare()
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    status, output = await asyncio.to_thread(run, url)
    assert (status, "schema version none" in output) == (2, True)


# What only a file can suffer.


def test_what_is_no_database_is_told_by_the_exit_status(tmp_path: Path) -> None:
    status, _ = run(f"sqlite:///{tmp_path}/none.db")
    assert status == 2
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "junk.db").write_bytes(b"this is no database" * 1000)
    status, output = run(f"sqlite:///{tmp_path}/junk.db")
    assert (status, "file is not a database" in output) == (1, True)


@pytest.mark.parametrize("store", ["sqlite"])
async def test_a_page_of_a_damaged_file_is_found(used: Services, edit: Edit, tmp_path: Path) -> None:
    await edit("UPDATE tasks SET metadata = hex(zeroblob(200000)) WHERE id = 1", "PRAGMA wal_checkpoint(TRUNCATE)")
    copy = tmp_path / "damaged.db"
    data = bytearray(_file(used).read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    copy.write_bytes(data)
    database = Database(f"sqlite:///{copy}")
    found = [finding async for finding in Checker(database).findings() if finding.broken]
    await database.close()
    assert [finding.name for finding in found] == ["damage"]


def _file(services: Services) -> Path:
    assert services.database.path is not None
    return services.database.path


@pytest.mark.parametrize("store", ["postgres"])
async def test_a_damaged_index_is_found_where_the_server_can_look(used: Services, edit: Edit) -> None:
    await edit("CREATE EXTENSION amcheck")
    assert await broken(used) == {}
    # A row gets into the table while the index is told that it need not hear of it.
    await edit(
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'ix_tasks_parent'::regclass",
        "UPDATE tasks SET parent_id = 2 WHERE id = 1",
        "UPDATE pg_index SET indisready = true WHERE indexrelid = 'ix_tasks_parent'::regclass",
    )
    found = await broken(used)
    assert list(found) == ["damage"]
    assert "ix_tasks_parent" in found["damage"][0]
