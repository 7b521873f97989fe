"""One task, two workers, a sweeper, somebody who cancels and somebody who retries: in every order there is.

A small model, written from what the documentation promises, says what each transaction does. All its states are found
breadth first; then traces through them are done to the real services, each actor with connections of its own, and after
each transaction the row is what the model says. (What is one transaction nobody can come between: SQLite has one writer.
The sweep is two, a look and a write, and others do come between.)
"""

import asyncio
import shutil
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from app.core.errors import Conflict
from app.core.events import LeasesRefused, TasksSettled
from app.core.lifecycle import Completed, Errored, Outcome, Released
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText
from app.models.checks import CHECKS
from app.models.sqlite import connect
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.chaos.conftest import LONG, checked
from tests.conftest import SAMPLES, FrozenClock
from tests.services.conftest import lose_leases

MAX_ATTEMPTS, POISON_AFTER = 2, 3
OUTCOMES: dict[str, Outcome] = {
    "completes": Completed(JsonText("1")),
    "fails": Errored("E", "again"),
    "releases": Released("stopped"),
}


class Worker(NamedTuple):
    """`held` is the lease it believes to hold, 0 for none; the others are what it may still do."""

    held: int
    claims: int
    renewals: int


class Sweeper(NamedTuple):
    """`taking`: the lease that it has found to be over, and when that was renewed last; not taken back yet. (It has looked
    for long enough to trust the clock; how it comes to that has tests of its own.)"""

    taking: tuple[int, int] | None
    looks: int


class State(NamedTuple):
    """The row, and what each actor knows and may still do. Times are counted in leases that passed."""

    status: str = "pending"
    attempts: int = 0
    lease: int = 0
    deaths: int = 0
    cancel_requested: bool = False
    renewed_at: int = 0
    time: int = 0
    a: Worker = Worker(held=0, claims=2, renewals=0)
    b: Worker = Worker(held=0, claims=1, renewals=1)
    sweeper: Sweeper = Sweeper(taking=None, looks=2)
    passes: int = 1
    cancels: int = 1
    retries: int = 1

    @property
    def situation(self) -> tuple[Any, ...]:
        """All that the next transaction can depend on: whose lease is whose, not how high it is."""

        def stands(lease: int, *renewed_at: int) -> str:
            if not lease:
                return "-"
            held = self.status == "running" and lease == self.lease and all(at == self.renewed_at for at in renewed_at)
            return "holds" if held else "lost"

        taking = self.sweeper.taking
        return (
            *(self.status, self.attempts, self.deaths, self.cancel_requested, stands(self.a.held), stands(self.b.held)),
            self.time - self.renewed_at,
            stands(*taking) if taking else "-",
        )


def moves(state: State) -> Iterator[str]:
    """What may come next."""
    for name, worker in (("a", state.a), ("b", state.b)):
        if worker.held:
            yield from (f"{name} {verb}" for verb in OUTCOMES)
            if worker.renewals:
                yield f"{name} renews"
        elif worker.claims:
            yield f"{name} claims"
    if state.sweeper.taking:
        yield "sweeper takes"
    elif state.sweeper.looks:
        yield "sweeper looks"
    for name, left in (("time passes", state.passes), ("cancel", state.cancels), ("retry", state.retries)):
        if left:
            yield name


def after(state: State, move: str) -> tuple[State, bool]:
    """What becomes of it, and whether the actor got what it wanted."""
    match move.split():
        case ["time", "passes"]:
            return state._replace(time=state.time + 1, passes=state.passes - 1), True
        case ["cancel"]:
            return _cancelled(state._replace(cancels=state.cancels - 1))
        case ["retry"]:
            return _retried(state._replace(retries=state.retries - 1))
        case ["sweeper", "looks"]:
            return _looked(state)
        case ["sweeper", "takes"]:
            return _taken(state)
        case [name, "claims"]:
            return _claimed(state, name)
        case [name, verb]:
            return _worked(state, name, verb)
    raise AssertionError(move)


def _cancelled(state: State) -> tuple[State, bool]:
    if state.status == "running":
        return state._replace(cancel_requested=True), True
    if state.status in ("pending", "retrying"):
        return state._replace(status="cancelled", cancel_requested=True), True
    return state, state.status == "cancelled"


def _retried(state: State) -> tuple[State, bool]:
    if state.status not in ("failed", "cancelled"):
        return state, False
    return state._replace(status="pending", attempts=0, deaths=0, cancel_requested=False), True


def _looked(state: State) -> tuple[State, bool]:
    over = state.status == "running" and state.renewed_at < state.time
    taking = (state.lease, state.renewed_at) if over else None
    return state._replace(sweeper=Sweeper(taking, state.sweeper.looks - 1)), over


def _taken(state: State) -> tuple[State, bool]:
    taking = state.sweeper.taking
    state = state._replace(sweeper=state.sweeper._replace(taking=None))
    if state.status != "running" or taking != (state.lease, state.renewed_at):
        return state, False
    return _unhappy(state._replace(deaths=state.deaths + (not state.cancel_requested))), True


def _claimed(state: State, name: str) -> tuple[State, bool]:
    worker: Worker = getattr(state, name)
    worker = worker._replace(claims=worker.claims - 1)
    ready = state.status in ("pending", "retrying")
    if ready:
        state = state._replace(
            status="running", attempts=state.attempts + 1, lease=state.lease + 1, renewed_at=state.time
        )
        worker = worker._replace(held=state.lease)
    return state._replace(**{name: worker}), ready


def _worked(state: State, name: str, verb: str) -> tuple[State, bool]:
    worker: Worker = getattr(state, name)
    holds = state.status == "running" and state.lease == worker.held
    if verb == "renews":
        state = state._replace(**{name: worker._replace(renewals=worker.renewals - 1)})
        return (state._replace(renewed_at=state.time) if holds else state), holds
    state = state._replace(**{name: worker._replace(held=0)})
    if not holds:
        return state, False
    if verb == "completes":
        return state._replace(status="completed"), True
    if verb == "releases" and not state.cancel_requested:
        return state._replace(status="pending", attempts=state.attempts - 1), True
    return _unhappy(state), True


def _unhappy(state: State) -> State:
    if state.cancel_requested:
        return state._replace(status="cancelled")
    given_up = state.attempts >= MAX_ATTEMPTS or state.deaths >= POISON_AFTER
    return state._replace(status="failed" if given_up else "retrying")


def explored(start: State) -> tuple[dict[State, tuple[State, str] | None], int]:
    """Every state that can come about, with where it was come from first; and how many transitions there are."""
    found: dict[State, tuple[State, str] | None] = {start: None}
    waiting, transitions = deque([start]), 0
    while waiting:
        state = waiting.popleft()
        for move in moves(state):
            transitions += 1
            following, _ = after(state, move)
            if following not in found:
                found[following] = (state, move)
                waiting.append(following)
    return found, transitions


@cache
def traces_from(state: State) -> int:
    """In how many ways it may go on to an end."""
    following = [after(state, move)[0] for move in moves(state)]
    return sum(traces_from(one) for one in following) or 1


def traces(found: dict[State, tuple[State, str] | None], random: Random, *, every_state: bool) -> Iterator[list[str]]:
    """Traces that have, together, every move in every situation; or in every state."""
    done: set[tuple[Any, str]] = set()

    def key(state: State, move: str) -> tuple[Any, str]:
        return (state if every_state else state.situation, move)

    for first in found:
        for move in moves(first):
            if key(first, move) in done:
                continue
            trace = [*_way_to(first, found), move]
            state = first
            while True:
                done.add(key(state, move))
                state, _ = after(state, move)
                options = list(moves(state))
                if not options:
                    break
                new = [one for one in options if key(state, one) not in done]
                move = random.choice(new or options)
                trace.append(move)
            yield trace


def _way_to(state: State, found: dict[State, tuple[State, str] | None]) -> list[str]:
    way: list[str] = []
    while (step := found[state]) is not None:
        state, move = step
        way.append(move)
    return way[::-1]


class Cast:
    """The actors as processes have them: each with services, and so connections, of its own, on one database."""

    def __init__(self, services: dict[str, Services], clock: FrozenClock) -> None:
        self._services = services
        self._clock = clock
        self._held: dict[str, ClaimedTask] = {}
        self._task_id = 0
        self._sweeping: asyncio.Task[bool] | None = None
        self._about_to_write = asyncio.Event()
        self._may_write = asyncio.Event()
        self._heard: Counter[str] = Counter()
        self._reader = connect(services["client"].database.path, isolation_level=None)
        self._reader.execute("PRAGMA foreign_keys=ON")
        for name in "ab":
            services[name].bus.subscribe(TasksSettled, lambda _: self._heard.update(["settled"]))
            services[name].bus.subscribe(LeasesRefused, lambda _: self._heard.update(["refused"]))
        self._hold_the_sweeper(services["sweeper"])

    def _hold_the_sweeper(self, services: Services) -> None:
        """Between its look and its write."""
        write = services.database.write

        @asynccontextmanager
        async def held(**options: bool) -> AsyncIterator[Any]:
            self._about_to_write.set()
            await self._may_write.wait()
            async with write(**options) as connection:
                yield connection

        services.database.write = held  # type: ignore[method-assign]  # that is the point

    def close(self) -> None:
        self._reader.close()
        self._may_write.set()  # what the sweeper counted is written when it closes

    async def begin(self) -> None:
        """A new task, and none beside it."""
        if self._sweeping is not None:
            self._may_write.set()
            await self._sweeping
        self._held, self._sweeping = {}, None
        self._reader.execute("DELETE FROM tasks")
        asked = {"task_type": "echo", "max_attempts": MAX_ATTEMPTS, "retry": {"base_seconds": 0, "jitter": False}}
        prepared = self._services["client"].intake.prepare(Submission.model_validate(asked))
        self._task_id = (await self._services["client"].tasks.submit(prepared)).task.id

    async def do(self, move: str) -> bool:
        """Whether the actor got what it wanted."""
        match move.split():
            case ["time", "passes"]:
                self._clock.forward(self._services["client"].settings.lease_seconds + 1)
                return True
            case [verb]:
                return await self._ask(verb)
            case ["sweeper", "looks"]:
                return await self._look()
            case ["sweeper", "takes"]:
                return await self._take()
            case [name, "claims"]:
                return await self._claim(name)
            case [name, verb]:
                return await self._work(name, verb)
        raise AssertionError(move)

    async def _ask(self, verb: str) -> bool:
        tasks = self._services["client"].tasks
        try:
            await (tasks.cancel if verb == "cancel" else tasks.retry)(self._task_id)
        except Conflict:
            return False
        return True

    async def _look(self) -> bool:
        self._about_to_write.clear()
        self._may_write.clear()
        self._sweeping = asyncio.create_task(self._services["sweeper"].chores.sweep())
        waiting = asyncio.create_task(self._about_to_write.wait())
        await asyncio.wait([self._sweeping, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._sweeping.done():
            assert await self._sweeping is False
            self._sweeping = None
        return self._sweeping is not None

    async def _take(self) -> bool:
        assert self._sweeping is not None
        before = self._reader.execute("SELECT count(*) FROM task_attempts").fetchone()
        self._may_write.set()
        await self._sweeping
        self._sweeping = None
        return bool(self._reader.execute("SELECT count(*) FROM task_attempts").fetchone() != before)

    async def _claim(self, name: str) -> bool:
        exchange = await self._services[name].queue.exchange(
            name, [], lambda heads: [Wish(tuple((head.queue, head.task_type) for head in heads), 1)]
        )
        for task in exchange.claimed:
            self._held[name] = task
        return bool(exchange.claimed)

    async def _work(self, name: str, verb: str) -> bool:
        task, queue = self._held[name], self._services[name].queue
        if verb == "renews":
            return bool(await queue.renew([(task.id, task.lease)]))
        self._heard.clear()
        await queue.exchange(name, [Ended(self._held.pop(name), OUTCOMES[verb], self._clock(), 0.0)])
        await asyncio.sleep(0)  # listeners are told while the next exchange is in the database
        assert self._heard.total() == 1
        return self._heard["settled"] == 1

    def row(self) -> tuple[str, int, int, int, bool]:
        status, *numbers, asked = self._reader.execute(
            "SELECT status, attempts, lease, deaths, cancel_requested_at IS NOT NULL FROM tasks"
        ).fetchone()
        return status, *numbers, bool(asked)

    def broken(self) -> list[str]:
        return [one.promise for one in CHECKS if not one.final and self._reader.execute(one.statement).fetchall()]


@pytest.fixture
async def cast(tmp_path: Path, migrated: Path) -> AsyncIterator[Cast]:
    shutil.copy(migrated, tmp_path / "tasks.db")
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/tasks.db",
        files_dir=tmp_path / "files",
        executor_modules=(SAMPLES,),
        durability="relaxed",  # nobody pulls the plug here
        poison_after=POISON_AFTER,
    )
    clock = FrozenClock()
    async with AsyncExitStack() as stack:
        services = {
            name: await stack.enter_async_context(open_services(settings, clock=clock, monotonic=clock.monotonic))
            for name in ("client", "a", "b", "sweeper")
        }
        await lose_leases(services["sweeper"], clock)
        with closing(Cast(services, clock)) as cast:
            yield cast
            await cast.begin()
    await checked(settings.database_url)


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quiet")
async def test_in_whatever_order_they_come_the_task_becomes_what_the_model_says(cast: Cast, random: Random) -> None:
    """Matrix G2. Every move in every situation at least once; in the long form in every state, that is every transition."""
    start = State()
    found, transitions = explored(start)
    replayed = steps = 0
    situations = {state.situation for state in found}
    for trace in traces(found, random, every_state=LONG):
        await cast.begin()
        state = start
        for place, move in enumerate(trace):
            state, wanted = after(state, move)
            got = await cast.do(move)
            told = f"after {', '.join(trace[: place + 1])}"
            assert cast.row() == state[:5], told
            assert got is wanted, told
        assert cast.broken() == [], ", ".join(trace)
        replayed, steps = replayed + 1, steps + len(trace)
    print(
        f"{len(found)} states in {len(situations)} situations, {transitions} transitions, {traces_from(start)} traces;"
        f" replayed {replayed} traces of {steps} transactions"
    )
