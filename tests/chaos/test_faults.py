"""Every call to the store fails once, before or after it was carried out: nothing acknowledged is lost, and all ends well."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.core.errors import Conflict, StoreUnavailable
from app.core.file import StoredFile
from app.core.lifecycle import Cancelled, Completed, Edit, Errored, Lost, Outcome, Released, Snoozed, TimedOut
from app.core.settings import Settings
from app.core.task import UNFINISHED, ClaimedTask, JsonText, Status
from app.models.dead_letters import DeadFilter
from app.models.sqlite import GuardedConnection, PatientCursor, sqlite
from app.models.tasks import TaskFilter
from app.services.file_folder import FileFolder
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.chaos.conftest import Journal, amount, checked
from tests.conftest import SAMPLES, FrozenClock

OUTCOMES: tuple[Outcome, ...] = (
    *(Completed(JsonText('{"number":1}')), Errored("E", "again"), Errored("E", "never", retryable=False), TimedOut(5)),
    *(Lost("killed"), Cancelled(), Released("stopped"), Snoozed(20)),
)

SECOND = timedelta(seconds=1)
_PRIORITY = Edit({"priority": 10})


class Fault:
    """Counts the calls into the SQLite library that may fail (a begin, a statement, a commit) and fails one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.at = 0
        self.after = False
        self.hit = ""
        for owner, name in ((PatientCursor, "execute"), (PatientCursor, "executemany"), (GuardedConnection, "commit")):
            monkeypatch.setattr(owner, name, self._failing(getattr(owner, name), name))

    def aim(self, at: int, *, after: bool) -> None:
        """Fail call number `at` from now, counted from 1, with or without having carried it out; 0 is none."""
        self.calls, self.at, self.after, self.hit = 0, at, after, ""

    def _failing(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any) -> Any:
            self.calls += 1
            here = self.calls == self.at
            if here:
                self.hit = str(arguments[0] if arguments else name)
            if here and not self.after:
                raise sqlite.OperationalError("disk I/O error (not done)")
            answer = original(target, *arguments)
            if here:
                if name != "commit":
                    target.close()  # the library never fails with a cursor half read
                raise sqlite.OperationalError("disk I/O error (but done)")
            return answer

        return call


class Story:
    """A day of every service. Whoever is refused tries again, as clients and workers do."""

    def __init__(self, services: Services, clock: FrozenClock, journal: Journal) -> None:
        self.services = services
        self.clock = clock
        self.journal = journal
        self.refusals = 0
        self.results: set[int] = set()

    async def persist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await call()
            except StoreUnavailable:
                self.refusals += 1
                assert self.refusals < 5, "one fault, and it does not end"

    async def tell(self) -> None:
        await self._submit()
        await self._work()
        await self._manage()
        await self._upkeep()
        await self._finish()

    async def _submit(self) -> None:
        tasks = self.services.tasks
        for number in range(len(OUTCOMES) + 2):
            asked: dict[str, Any] = {"task_type": "echo", "payload": {"number": number}, "unique_key": f"u{number}"}
            asked |= {"retry": {"policy": "fixed", "base_seconds": 1}, "max_attempts": 4}
            key = f"key-{number}"
            prepared = self.services.intake.prepare(Submission.model_validate(asked), key)
            answer = await self.persist(lambda prepared=prepared: tasks.submit(prepared))
            self.journal.told(answer.task.id, key)
        later = {"task_type": "echo", "delay_seconds": 3.0}
        both = [self.services.intake.prepare(Submission.model_validate(later)) for _ in range(2)]
        for id_ in await self.persist(lambda: tasks.submit_all(both)):
            self.journal.told(id_)
        late = Submission.model_validate({"task_type": "echo", "queue": "nobody", "delay_seconds": 2.0})
        expiring = self.services.intake.prepare(
            late.model_copy(update={"expires_at": self.clock.forward(0) + 5 * SECOND})
        )
        self.journal.told((await self.persist(lambda: tasks.submit(expiring))).task.id)

    async def _claim(self, room: int = 100) -> list[ClaimedTask]:
        def choose(heads: Any) -> list[Wish]:
            return [Wish(tuple((head.queue, head.task_type) for head in heads), room)]

        exchange = await self.persist(lambda: self.services.queue.exchange("w", [], choose, ("default",)))
        return list(exchange.claimed)

    async def _settle(self, claimed: list[ClaimedTask], outcomes: tuple[Outcome, ...]) -> None:
        now = self.clock()
        ended = [
            Ended(task, outcome, now, 0.0, progress=JsonText("1"), checkpointed=True)
            for task, outcome in zip(claimed, outcomes, strict=False)
        ]
        await self.persist(lambda: self.services.queue.exchange("w", ended))
        self.results |= {one.task.id for one in ended if isinstance(one.outcome, Completed)}

    async def _work(self) -> None:
        queue = self.services.queue
        claimed = await self._claim(len(OUTCOMES))
        for task in claimed:
            key = (task.id, task.lease)
            await self.persist(lambda key=key: queue.add_checkpoint(*key, JsonText("[1]")))
            await self.persist(lambda key=key: queue.save_progress([(*key, JsonText("50"))]))
        if claimed:
            await self._save_file(claimed[0], temporary=False)
            await self._save_file(claimed[-1], temporary=True)
        await self.persist(lambda: queue.renew([(task.id, task.lease) for task in claimed]))
        await self._settle(claimed, OUTCOMES)
        self.clock.forward(1.5)
        again = await self._claim(2)
        await self._settle(again, (Errored("E", "never", retryable=False),) * 2)

    async def _save_file(self, task: ClaimedTask, *, temporary: bool) -> None:
        draft = FileFolder(self.services.settings.files_dir).create(1000)
        draft.write(b"made")
        sha256 = draft.commit()
        file = StoredFile(draft.id, "made.bin", draft.size, "application/octet-stream", sha256, self.clock())
        kept = await self.persist(lambda: self.services.files.keep(task.id, task.lease, file, temporary=temporary))
        assert kept is True

    async def _manage(self) -> None:
        tasks, letters = self.services.tasks, self.services.dead_letters
        dead = await self.persist(lambda: letters.search(DeadFilter(), 10))
        await self.persist(lambda: letters.groups(DeadFilter(), 10))
        if dead:
            newest, oldest = DeadFilter(ids=(dead[0].id,)), DeadFilter(ids=(dead[-1].id,))
            await self.persist(lambda: letters.requeue(newest, dry_run=True))
            await self.persist(lambda: letters.requeue(newest, dry_run=False))
            await self.persist(lambda: letters.resolve(oldest, "seen to", dry_run=False))
        waiting = (await self._in_state(Status.PENDING, Status.SCHEDULED, Status.RETRYING))[-2:]  # the oldest
        for id_ in waiting:
            await self.persist(lambda id_=id_: tasks.edit(id_, _PRIORITY))
        for id_ in waiting[:1]:
            await self.persist(lambda id_=id_: tasks.cancel(id_))
        for id_ in (await self._in_state(Status.CANCELLED))[-1:]:
            await self.persist(lambda id_=id_: _unless_done(tasks.retry(id_)))
        await self.persist(self.services.insights.stats)

    async def _in_state(self, *states: Status) -> list[int]:
        wanted = TaskFilter(statuses=states)
        found = await self.persist(lambda: self.services.tasks.search(wanted, 50, whole_rows=True))
        return [task.id for task in found]

    async def _upkeep(self) -> None:
        chores = self.services.chores
        await self._claim(2)  # by a worker that dies
        self.clock.forward(31)
        for chore in (chores.promote, chores.sweep, chores.expire, chores.prune, self.services.files.collect):
            await self.persist(chore)
        async with await self.services.files.receive() as reception:
            await reception.write(b"data")
            await self.persist_file(reception)

    async def persist_file(self, reception: Any) -> None:
        try:
            await reception.finish("name", None)
        except StoreUnavailable:
            self.refusals += 1  # the upload is gone, and its client knows

    async def _finish(self) -> None:
        """All the rest completes."""
        chores = self.services.chores
        for _ in range(12):
            self.clock.forward(31)
            for chore in (chores.promote, chores.sweep, chores.expire):
                await self.persist(chore)
            claimed = await self._claim()
            await self._settle(claimed, (Completed(JsonText("1")),) * len(claimed))
            left = await self._in_state(*UNFINISHED)
            if not left:
                return
        raise AssertionError(f"tasks {left} never end")


async def _unless_done(call: Awaitable[Any]) -> None:
    """A second try finds what the first has done, if only its answer was lost."""
    with suppress(Conflict):
        await call


@asynccontextmanager
async def told(folder: Path, migrated: Path) -> AsyncIterator[Story]:
    """The story's stage, on a database of its own."""
    folder.mkdir()
    shutil.copy(migrated, folder / "tasks.db")
    settings = Settings(
        database_url=f"sqlite:///{folder}/tasks.db",
        files_dir=folder / "files",
        executor_modules=(SAMPLES,),
        durability="relaxed",
    )
    clock, journal = FrozenClock(), Journal(folder / "told.jsonl")
    try:
        async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
            yield Story(services, clock, journal)
    finally:
        journal.close()


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quiet")
async def test_whatever_call_to_the_store_fails_nothing_acknowledged_is_lost(
    tmp_path: Path, migrated: Path, random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(monkeypatch)
    async with told(tmp_path / "sound", migrated) as story:
        fault.aim(0, after=False)
        await story.tell()
        calls = fault.calls
        assert story.refusals == 0
    points = [(at, after) for at in range(1, calls + 1) for after in (False, True)]
    chosen = sorted(random.sample(points, min(len(points), amount(24, 10_000))))
    for at, after in chosen:
        folder = tmp_path / f"{at}-{'after' if after else 'before'}"
        async with told(folder, migrated) as story:
            fault.aim(at, after=after)
            try:
                await story.tell()
            except Exception as error:
                error.add_note(f"call {at} failed {'after' if after else 'before'} it was carried out: {fault.hit}")
                raise
            assert fault.hit, f"call {at} was never made"
            assert story.refusals == 1, f"{fault.hit} failed, and nobody heard of it"
            fault.aim(0, after=False)
            for id_ in story.results:
                assert (await story.services.tasks.get(id_)).status is Status.COMPLETED
        await checked(f"sqlite:///{folder}/tasks.db", files=folder / "files", journal=folder / "told.jsonl", final=True)
        shutil.rmtree(folder)
    print(f"{len(chosen)} of {len(points)} fault points in {calls} calls")
