"""PostgreSQL under stress: backends killed, servers restarted, wires cut at the worst moment, everyone at once. Nothing that was
acknowledged is lost, nothing is done twice, nobody hears of anything but "not now", and all of it heals by itself."""

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from app.core.errors import AppError, Conflict, NotFound, StoreUnavailable
from app.core.lifecycle import Completed, Errored
from app.core.settings import Settings
from app.core.task import UNFINISHED, JsonText
from app.models import postgres_store
from app.models.database import Database
from app.models.dead_letters import DeadFilter
from app.models.tasks import TaskFilter
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.chaos.conftest import Journal, amount, checked
from tests.conftest import SAMPLES, until
from tests.postgres_server import Server
from tests.proxy import Proxy

DONE = Completed(JsonText('{"number":1}'))

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def store() -> str:
    return "postgres"


@pytest.fixture
def private() -> Iterator[Server]:
    """A server of the test's own, which may be killed."""
    server = Server()
    server.start()
    yield server
    server.remove()


class Bustle:
    """Clients that submit, each task under a key of its own and again until they are answered, and workers that do what they
    claim, each in a process's services of its own. `troubles` counts what they were refused with."""

    def __init__(self, url: str, folder: Path, journal: Journal) -> None:
        self.url, self.folder, self.journal = url, folder, journal
        self.troubles: Counter[str] = Counter()
        self.runs: Counter[int] = Counter()
        self.asked = self.answered = 0
        self._stack = AsyncExitStack()
        self._working = True

    async def open(self, **changes: Any) -> Services:
        values = {"database_url": self.url, "files_dir": self.folder / "files", "executor_modules": (SAMPLES,)}
        return await self._stack.enter_async_context(open_services(Settings(**values | changes)))

    async def persist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """As clients and workers do: again, until it is answered."""
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                self.troubles[type(error).__name__] += 1
                await asyncio.sleep(0.02)

    async def submit(self, services: Services, count: int, name: str) -> None:
        for number in range(count):
            key = f"{name}-{number}"
            asked = Submission.model_validate({"task_type": "echo", "payload": {"number": number}, "max_attempts": 1})
            prepared = services.intake.prepare(asked, key)
            self.asked += 1
            answer = await self.persist(lambda prepared=prepared: services.tasks.submit(prepared))
            self.journal.told(answer.task.id, key)
            self.answered += 1

    async def work(self, services: Services, name: str, room: int = 7) -> None:
        """Until told to stop; then what was claimed is settled."""

        def choose(heads: Any) -> list[Wish]:
            return [Wish(tuple((one.queue, one.task_type) for one in heads), room)] if self._working else []

        ended: list[Ended] = []

        async def exchange() -> list[Any]:
            return list((await services.queue.exchange(name, ended, choose)).claimed)

        while self._working or ended:
            claimed = await self.persist(exchange)
            now = services.database.clock()()
            ended[:] = [Ended(task, DONE, now, 0.0) for task in claimed]
            self.runs.update(task.id for task in claimed)
            leases = [(task.id, task.lease) for task in claimed]
            if leases:
                await self.persist(lambda leases=leases: services.queue.renew(leases))
            else:
                await asyncio.sleep(0.005)

    async def answers_again(self, all_submitted: Callable[[], bool]) -> float:
        """Seconds until one more is answered, within ten."""
        before, began = self.answered, time.monotonic()
        await until(lambda: self.answered > before or all_submitted(), 10)
        return time.monotonic() - began

    @asynccontextmanager
    async def going_on(self, clients: int, tasks_each: int, workers: int) -> AsyncIterator[Callable[[], bool]]:
        """Everyone at work; gives what says whether all was submitted. At the end everything has been done."""
        services = [await self.open() for _ in range(2)]
        submitting = [
            asyncio.create_task(self.submit(services[number % 2], tasks_each, f"c{number}"))
            for number in range(clients)
        ]
        working = [asyncio.create_task(self.work(services[number % 2], f"w{number}")) for number in range(workers)]
        try:
            yield lambda: all(task.done() for task in submitting)
            await asyncio.gather(*submitting)

            async def drained() -> bool:
                stats = await self.persist(services[0].insights.stats)
                return bool(stats.ready == stats.running == stats.scheduled == stats.retrying == 0)

            await until(drained, 60)
            self._working = False
            await asyncio.gather(*working)
        finally:
            for task in (*submitting, *working):
                task.cancel()
            await asyncio.gather(*submitting, *working, return_exceptions=True)
            await self._stack.aclose()

    async def check(self, url: str) -> None:
        """Each acknowledged task is there, once, and completed at its only attempt."""
        await checked(url, journal=self.journal.path, final=True)
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT idempotency_key, status, attempts FROM tasks")
        await connection.close()
        assert len(rows) == self.answered == self.asked
        assert {(row[1], row[2]) for row in rows} == {("completed", 1)}, "a claim was lost, or charged without a run"
        print(f"{self.answered} tasks, refused with {dict(self.troubles)}, {sum(self.runs.values())} runs")
        assert set(self.troubles) <= {"StoreUnavailable", "OutcomeUnknown"}


async def kill_a_backend(connection: asyncpg.Connection, random: Random) -> None:
    """Any of those that work on this database but our own."""
    asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    pids = [row[0] for row in await connection.fetch(asked)]
    if pids:
        await connection.execute("SELECT pg_terminate_backend($1)", random.choice(pids))


async def test_backends_that_are_killed_lose_nothing(
    database_url: str, tmp_path: Path, journal: Journal, random: Random
) -> None:
    """C1, and C5: the one that listens is among them."""
    bustle = Bustle(database_url, tmp_path, journal)
    killer = await asyncpg.connect(database_url)
    kills = 0
    async with bustle.going_on(clients=8, tasks_each=amount(40, 1500), workers=4) as all_submitted:
        while not all_submitted() or kills < amount(20, 300):
            await kill_a_backend(killer, random)
            kills += 1
            await asyncio.sleep(0.05)
        healed = await bustle.answers_again(all_submitted)
    await killer.close()
    await bustle.check(database_url)
    print(f"{kills} backends killed; the next answer came {healed:.2f} s after the last")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=["fast", "immediate", "killed"])
async def test_a_server_that_restarts_loses_nothing(
    private: Server, tmp_path: Path, journal: Journal, how: signal.Signals
) -> None:
    """C2 and B3."""
    bustle = Bustle(private.url, tmp_path, journal)
    async with bustle.going_on(clients=4, tasks_each=amount(30, 500), workers=2) as all_submitted:
        healed = []
        for _ in range(amount(2, 20)):
            before = bustle.answered
            await until(lambda before=before: bustle.answered > before + 5 or all_submitted())
            await asyncio.to_thread(private.stop, how)
            await asyncio.to_thread(private.start)
            healed.append(await bustle.answers_again(all_submitted))  # by itself
    await bustle.check(private.url)
    print(f"{len(healed)} restarts; the next answer came {max(healed):.2f} s after one at the latest")


async def test_a_wire_that_is_cut_at_the_commit_doubles_and_loses_nothing(
    database_url: str, tmp_path: Path, journal: Journal, random: Random
) -> None:
    """C3: before the server heard of it, or after it has done it. Every transaction there is may be hit."""
    async with Proxy(database_url) as proxy:
        bustle = Bustle(proxy.url, tmp_path, journal)
        wanted = amount(60, 1000)
        async with bustle.going_on(clients=6, tasks_each=amount(60, 1200), workers=3) as all_submitted:
            while proxy.cuts < wanted and not all_submitted():
                cuts = proxy.cuts
                proxy.cut_at_commit(random.choice(["before", "after"]))
                await until(lambda cuts=cuts: proxy.cuts > cuts or all_submitted())
        print(f"{proxy.cuts} connections cut at a commit")
        assert proxy.cuts > 10
    await bustle.check(database_url)


async def test_a_claim_of_which_nobody_could_be_asked_is_handed_back(
    database_url: str, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was away for long just when it had committed a claim: the attempt is not charged, the task runs at once."""
    monkeypatch.setattr(postgres_store, "DEADLINE_SECONDS", 0.3)
    async with Proxy(database_url) as proxy:
        bustle = Bustle(proxy.url, tmp_path, journal)
        services = await bustle.open()
        await bustle.submit(services, 3, "c")
        choose = lambda heads: (  # noqa: E731
            setattr(proxy, "refuses", True),
            [Wish(tuple((one.queue, one.task_type) for one in heads), 2)],
        )[1]
        proxy.cut_at_commit("after")
        with pytest.raises(StoreUnavailable):
            await services.queue.exchange("w", [], choose)
        proxy.refuses = False
        assert (await services.insights.stats()).running == 2
        exchange = await services.queue.exchange("w", [], lambda heads: [Wish((("default", "echo"),), 5)])
        assert sorted((one.id, one.attempt, one.lease) for one in exchange.claimed) == [(1, 1, 2), (2, 1, 2), (3, 1, 1)]
        attempts = await services.tasks.attempts(1)
        assert [one.outcome for one in attempts] == ["released", None]
        await bustle._stack.aclose()


async def test_everyone_at_once_waits_for_nobody_in_a_circle(
    database_url: str, tmp_path: Path, journal: Journal, random: Random
) -> None:
    """C12: workers, sweepers, and people who cancel, retry, edit, requeue and purge whatever there is."""
    bustle = Bustle(database_url, tmp_path, journal)
    services = [await bustle.open(lease_seconds=0.1, sweep_seconds=0.1, poison_after=1000) for _ in range(4)]
    going = True
    counts: Counter[str] = Counter()
    keys = itertools.count()

    async def repeat(name: str, call: Callable[[], Awaitable[Any]]) -> None:
        while going:
            with suppress(Conflict, NotFound):
                await call()
                counts[name] += 1
            await asyncio.sleep(0)

    async def some_id(one: Services) -> int:
        found = await one.tasks.search(TaskFilter(statuses=(*UNFINISHED,)), 20, whole_rows=False)
        return random.choice(found).id if found else 1

    def submit(one: Services) -> Callable[[], Awaitable[Any]]:
        async def call() -> None:
            number = next(keys)
            fields = {"task_type": "echo", "max_attempts": 3, "unique_key": f"u{number % 50}"}
            tasks = [one.intake.prepare(Submission.model_validate(fields))]
            tasks += [
                one.intake.prepare(
                    Submission.model_validate({"task_type": "echo", "unique_key": f"v{random.randrange(50)}"})
                )
            ]
            random.shuffle(tasks)
            await one.tasks.submit_all(tasks)

        return call

    def work(one: Services, name: str) -> Callable[[], Awaitable[Any]]:
        held: list[Any] = []

        async def call() -> None:
            now = one.database.clock()()
            outcomes = [DONE, Errored("E", "again", after_seconds=0.0), Errored("E", "never", retryable=False)]
            ended = [Ended(task, random.choice(outcomes), now, 0.0) for task in held if random.random() < 0.9]
            exchange = await one.queue.exchange(
                name, ended, lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 9)]
            )
            held[:] = exchange.claimed
            random.shuffle(held)
            await one.queue.renew([(task.id, task.lease) for task in held])
            await one.queue.save_progress([(task.id, task.lease, JsonText("1")) for task in held])

        return call

    def people(one: Services) -> dict[str, Callable[[], Awaitable[Any]]]:
        letters = one.dead_letters
        return {
            "sweep": one.chores.sweep,
            "promote": one.chores.promote,
            "cancel": lambda: _then(some_id(one), one.tasks.cancel),
            "retry": lambda: _then(some_id(one), one.tasks.retry),
            "delete": lambda: _then(some_id(one), one.tasks.delete),
            "requeue": lambda: letters.requeue(DeadFilter(), dry_run=random.random() < 0.2),
            "purge": lambda: letters.purge(DeadFilter(), dry_run=random.random() < 0.5),
        }

    calls = [repeat("work", work(services[number % 4], f"w{number}")) for number in range(8)]
    calls += [repeat("submit", submit(one)) for one in services]
    calls += [repeat(name, call) for one in services[:2] for name, call in people(one).items()]
    everyone = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(amount(4, 60))
    going = False
    answers = await asyncio.gather(*everyone, return_exceptions=True)
    print(dict(counts))
    await bustle._stack.aclose()
    assert [repr(one) for one in answers if isinstance(one, AppError | Exception)] == []
    assert min(counts[name] for name in ("work", "submit", "sweep", "cancel", "requeue", "purge")) > 3
    await checked(database_url)


async def _then(first: Awaitable[Any], second: Callable[[Any], Awaitable[Any]]) -> Any:
    return await second(await first)


async def test_the_first_process_after_a_crash_finds_everything(
    private: Server, tmp_path: Path, journal: Journal
) -> None:
    """Acknowledged means stored: the server is killed after each answer, without a word."""
    bustle = Bustle(private.url, tmp_path, journal)
    services = await bustle.open()
    for number in range(amount(3, 20)):
        await bustle.submit(services, 1, f"r{number}")
        await asyncio.to_thread(private.stop, signal.SIGKILL)
        await asyncio.to_thread(private.start)
    database = Database(private.url)
    await database.open()
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM tasks")) == bustle.answered
    await database.close()
    await bustle._stack.aclose()
