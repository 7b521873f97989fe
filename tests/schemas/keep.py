"""Databases as programs of each schema version left them: tests/schemas/NNNN.sql. The present one must open them all.

    python -m tests.schemas.keep

writes the one of the present version: a service's day with a task in every state, as SQL. Run it once when you add a
migration, and commit the file with it; never write one again that a release has made.
"""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from app.core.alerts import BreakerSeen, Sight
from app.core.attempt_log import AttemptLog, LogLimits, Source
from app.core.audit import Actor
from app.core.file import StoredFile
from app.core.keys import Scope
from app.core.lifecycle import (
    Cancelled,
    Completed,
    Edit,
    Errored,
    Lost,
    Outcome,
    Released,
    Snoozed,
    TimedOut,
)
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText
from app.models import migrate
from app.models.dead_letters import DeadFilter
from app.models.sqlite import connect
from app.services.file_folder import FileFolder
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import SAMPLES, FrozenClock

FOLDER = Path(__file__).parent
OUTCOMES: tuple[Outcome, ...] = (
    Completed(JsonText('{"text":"Grüße, 世界 \U0001f680","number":9007199254740993}')),
    Errored("ValueError", "number 17 is no good", "Traceback (most recent call last):\n  ...", retryable=False),
    Errored("ValueError", "number 18 is no good"),
    TimedOut(5),
    Lost("its runner was killed by SIGKILL"),
    Errored("ConnectionError", "nobody there", after_seconds=7),
    Cancelled("enough"),
    Released("the worker stopped"),
    Snoozed(20),
)
LAST_CHANCE = (2, 3, 4)
"""Places in OUTCOMES of those after which no attempt is left."""


class Day:
    """What happens to the tasks of one service in one day."""

    def __init__(self, services: Services, clock: FrozenClock) -> None:
        self._services = services
        self._clock = clock

    async def live(self) -> None:
        await self._submit()
        await self._work()
        await self._lose_one_again_and_again()
        await self._manage()
        await self._leave_some_running()
        await self._tell()

    async def _prepared(self, **asked: Any) -> int:
        key = asked.pop("idempotency_key", None)
        new = self._services.intake.prepare(Submission.model_validate({"task_type": "echo"} | asked), key)
        return (await self._services.tasks.submit(new)).task.id

    async def _submit(self) -> None:
        async with await self._services.files.receive() as reception:
            await reception.write(b"data")
            file = await reception.finish("Ä ö.txt", "text/plain")
        for place in range(len(OUTCOMES)):
            asked: dict[str, Any] = {"payload": {"number": place}, "tags": ["red", "blue"], "unique_key": f"u{place}"}
            asked |= {"metadata": {"who": "Zoë", "depth": [[1.5, None, True]]}, "idempotency_key": f"key-{place}"}
            if place in LAST_CHANCE:
                asked["max_attempts"] = 1
            await self._prepared(**asked)
            self._clock.forward(0.25)
        await self._prepared(task_type="copy_file", payload={"file_id": file.id}, priority=100)
        await self._prepared(retry={"policy": "fixed", "base_seconds": 2}, retry_for_seconds=600.5, parent_id=1)

    async def _claim(self, room: int = 100) -> list[ClaimedTask]:
        def choose(heads: Any) -> list[Wish]:
            return [Wish(tuple((head.queue, head.task_type) for head in heads), room)]

        return list((await self._services.queue.exchange("w-1", [], choose)).claimed)

    async def _settle(self, task: ClaimedTask, outcome: Outcome) -> None:
        self._clock.forward(0.5)
        ended = Ended(task, outcome, self._clock(), 0.25, progress=JsonText('{"percent":50}'), checkpointed=True)
        await self._services.queue.exchange("w-1", [ended])

    async def _work(self) -> None:
        """The file's task is first, by its priority."""
        saving, *others = await self._claim(1 + len(OUTCOMES))
        await self._save(saving, temporary=False)
        await self._save(saving, temporary=True)
        for task, outcome in zip(others, OUTCOMES, strict=True):
            await self._services.queue.add_checkpoint(task.id, task.lease, JsonText('{"done":1}'))
            await self._settle(task, outcome)
        await self._settle(saving, Completed(JsonText("null")))

    async def _save(self, task: ClaimedTask, *, temporary: bool) -> None:
        draft = FileFolder(self._services.settings.files_dir).create(1000)
        draft.write(b"made")
        sha256 = draft.commit()
        file = StoredFile(draft.id, "made.bin", draft.size, "application/octet-stream", sha256, self._clock())
        assert await self._services.files.keep(task.id, task.lease, file, temporary=temporary)

    async def _lose_one_again_and_again(self) -> None:
        poisoned = await self._prepared(priority=90, max_attempts=9)
        for _ in range(self._services.settings.poison_after):
            (task,) = await self._claim(1)
            assert task.id == poisoned
            await self._settle(task, Lost("its runner was killed by SIGSEGV"))
            self._clock.forward(0.001)
            if task.lease < self._services.settings.poison_after:
                await self._services.tasks.edit(poisoned, Edit({"scheduled_at": None}))

    async def _manage(self) -> None:
        tasks = self._services.tasks
        await tasks.cancel(await self._prepared(queue="other"))
        await tasks.delete(await self._prepared())
        await self._prepared(queue="other", expires_at=self._clock() + timedelta(seconds=1))
        self._clock.forward(1)
        await self._services.chores.expire()
        await tasks.retry(await self._failed_once_more())
        dead = await self._services.dead_letters.search(DeadFilter(), 10)
        await self._services.dead_letters.resolve(DeadFilter(ids=(dead[-1].id,)), "seen to", dry_run=False)
        _, token = await self._services.keys.create("demo", [Scope.SUBMIT, Scope.READ], "north", timedelta(days=90))
        await self._services.ring.load()
        await self._services.sessions.begin(token)
        await self._services.breakers.trip("echo", "not today", 3600)
        await self._services.breakers.reset("echo")
        await self._services.breakers.trip("copy_file", "not today", 3600)
        await self._services.workers.sign_in("demo", ["default", "other"], ["echo"], 4)
        async with self._services.database.write() as connection:
            await connection.exec_driver_sql("INSERT INTO queues (name, paused) VALUES ('other', 1)")
        await self._alert()
        limits = {"max_running": 50, "rate_limit": 1000, "rate_period_seconds": 0.5, "max_depth": 10_000}
        await self._services.limits.change("default", limits)

    async def _alert(self) -> None:
        """A breaker is open, is closed, and is open again; all of it is seen, and told of. No time passes for tasks."""
        alerts, now = self._services.alerts, self._clock()
        seen = (BreakerSeen("copy_file", "not today", 3),)
        await alerts.look()
        for seconds, breakers in ((61, seen), (62, ()), (400, ()), (401, seen), (470, seen)):
            await alerts.judge(Sight(now + timedelta(seconds=seconds), open_breakers=breakers))
        await alerts.silence("queue-old", "other", timedelta(days=30), "it is meant to wait", Actor("tk0", "demo"))

    async def _failed_once_more(self) -> int:
        task_id = await self._prepared(priority=80)
        (task,) = await self._claim(1)
        assert task.id == task_id
        await self._settle(task, Errored("ValueError", "number 19 is no good", retryable=False))
        return task_id

    async def _leave_some_running(self) -> None:
        later = self._clock() + timedelta(days=30)
        await self._prepared(scheduled_at=later, expires_at=later + timedelta(days=1), queue="other")
        for _ in range(2):
            await self._prepared(queue="other", concurrency_key="customer:7", concurrency_limit=1)
        running, cancelled = await self._claim(2)
        await self._services.tasks.cancel(cancelled.id)
        await self._services.queue.save_progress([(running.id, running.lease, JsonText('{"percent":10}'))])
        await self._services.queue.add_checkpoint(running.id, running.lease, JsonText('{"page":3}'))
        log = AttemptLog(running.id, running.lease, running.attempt, LogLimits(100, 2**20))
        log.add(self._clock(), Source.LOG, "Grüße, \x00 \U0001f680", {"order": 9007199254740993})
        await self._services.queue.save_progress([], log.take())
        await self._save(running, temporary=True)

    async def _tell(self) -> None:
        filters = {"task_types": ("echo",), "queues": (), "tags": ("red",), "events": ("failed", "cancelled")}
        url, secrets = "https://hooks.example.com/in?a=1", ("new", "old")
        webhook = await self._services.webhooks.create("north", url, description="Zoë", secrets=secrets, **filters)
        await self._services.webhooks.ping(webhook.id)


async def live(folder: Path) -> Path:
    """A database that has seen a day."""
    settings = Settings(
        database_url=f"sqlite:///{folder}/tasks.db",
        files_dir=folder / "files",
        executor_modules=(SAMPLES,),
        webhook_secrets="secret-of-the-tests-1",
        alert_webhook_url="https://hooks.example.com/alerts",
    )
    clock = FrozenClock()
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
        await Day(services, clock).live()
    return folder / "tasks.db"


def dumped(database: Path) -> Iterator[str]:
    """The database as SQL, a statement each."""
    with closing(connect(database)) as connection:
        made = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        made = made.fetchall()
        yield "BEGIN"
        yield from (sql for kind, name, sql in made if kind == "table" and name != "sqlite_sequence")
        for table in (
            *(name for kind, name, _ in made if kind == "table" and name != "sqlite_sequence"),
            "sqlite_sequence",
        ):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = " || ', ' || ".join(f"quote({column})" for column in columns)
            if table == "sqlite_sequence":
                yield "DELETE FROM sqlite_sequence"
            for (row,) in connection.execute(f"SELECT {values} FROM {table}"):
                yield f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({row})"
        yield from (sql for kind, _, sql in made if kind == "index")
        yield "COMMIT"


def restored(version: str, database: Path) -> None:
    """Make the database that a program of this schema version left."""
    with closing(connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript((FOLDER / f"{version}.sql").read_text())


def main() -> None:
    target = FOLDER / f"{migrate.HEAD}.sql"
    if target.exists():
        sys.exit(f"{target} is there already; what a program has left is kept as it is.")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    folder = Path(tempfile.mkdtemp())
    try:
        target.write_text("".join(f"{statement};\n" for statement in dumped(asyncio.run(live(folder)))))
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
