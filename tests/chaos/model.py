"""A small model of the tasks, and a world in which every verb is done to it and to the real services alike.

The model is written from what the documentation promises, not from app/core/lifecycle.py: where the two come apart, one of
them is wrong. All times are whole milliseconds.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg

from app.core.clock import from_milliseconds, to_milliseconds
from app.core.errors import AppError, Conflict, IdempotencyMismatch, InvalidRequest, NotFound, UniqueKeyTaken
from app.core.events import LeasesRefused, TasksSettled
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
from app.core.settings import is_sqlite, sqlite_path
from app.core.task import ClaimedTask, JsonText
from app.models import checks
from app.models.checks import CHECKS
from app.models.dead_letters import DeadFilter
from app.models.sqlite import sqlite
from app.services.queue import Wish
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock

Option = TypeVar("Option")
Choose = Callable[[Sequence[Any]], Any]
"""Picks one of the options: Hypothesis, or seeded chance."""

SECOND = 1000
LEASE = 30 * SECOND
STEP = 60 * SECOND
DAY = 86400 * SECOND
KEEP_COMPLETED, KEEP_OTHERS, KEEP_KEYED = 7 * DAY, 30 * DAY, DAY
POISON_AFTER = 3
APART = 2 * SECOND
"""Clocks that come apart by more than this have been set."""
STEADY = 3600
CHECKED_EVERY = 8
"""Steps between two looks at all promises; the rows are compared after each, and the checker has the last word."""

WAITING = ("pending", "scheduled", "retrying")
TERMINAL = ("completed", "failed", "cancelled")
STATES = (*WAITING, "running", *TERMINAL)
"""`blocked` is not among them: nothing makes a task so yet."""

OUTCOMES: dict[str, tuple[Outcome, ...]] = {
    "completed": (Completed(JsonText('{"number":1}')),),
    "error": (Errored("E", "again"), Errored("E", "in a while", after_seconds=7)),
    "error for good": (Errored("E", "never", retryable=False),),
    "timeout": (TimedOut(5),),
    "lost": (Lost("killed"),),
    "cancelled": (Cancelled(),),
    "released": (Released("stopped"), Released("neighbour died", runs_alone=True)),
    "snoozed": (Snoozed(20),),
}


@dataclass
class Expected:
    """A task as it should be: the compared columns of its row, then what the model needs to know besides."""

    id: int
    status: str
    priority: int
    rank: int
    max_attempts: int
    created_at: int
    scheduled_at: int | None
    expires_at: int | None
    retry_until: int | None
    unique_key: str | None
    idempotency_key: str | None
    attempts: int = 0
    lease: int = 0
    deaths: int = 0
    runs_alone: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    lease_expires_at: int | None = None
    cancel_requested_at: int | None = None
    resolved_at: int | None = None
    failure_reason: str | None = None
    worker_id: str | None = None
    result: str | None = None
    progress: str | None = None

    request: Any = None
    retry_for: int | None = None
    waits_seconds: float | None = None
    """Between attempts, always; None where the settings' growing wait with jitter holds."""
    checkpoints: int = 0
    history: list[tuple[int, int, str]] = field(default_factory=list)
    wait: tuple[int, int, int] | None = None
    """What the last attempt that began a wait left: its lease, its end, how long to wait."""

    def holds(self, lease: int) -> bool:
        return self.status == "running" and self.lease == lease


COLUMNS = [one.name for one in dataclasses.fields(Expected)]
COLUMNS = COLUMNS[: COLUMNS.index("request")]


def possible_pairs() -> set[tuple[str, str]]:
    """Every (situation, verb) that can come about."""
    everywhere = {
        (state, verb)
        for state in (*STATES, "gone")
        for verb in ("cancel", "retry", "edit", "delete", "requeue", "resolve", "purge", "look")
    }
    leases = {
        (situation, verb)
        for situation in (*WAITING, "running", "running under a newer lease", *TERMINAL, "gone")
        for verb in (*(f"settle {word}" for word in OUTCOMES), "renew", "progress", "checkpoint")
    }
    keys = {
        (state, verb)
        for state in STATES
        for verb in ("submit again with its key", "submit another with its key", "submit with its unique key")
    }
    upkeep = {("running", "sweep")} | {(state, "prune") for state in TERMINAL}
    upkeep |= {(state, verb) for state in ("scheduled", "retrying") for verb in ("promote", "promoted by a claim")}
    upkeep |= {(state, "expire") for state in ("pending", "scheduled")} | {(state, "bring back") for state in WAITING}
    return everywhere | leases | keys | upkeep | {("pending", "claim"), ("none", "submit"), ("none", "bulk")}


def method_of(verb: str) -> str:
    """The name of the method of `World` that may do what a pair calls `verb`."""
    named = {
        "promoted by a claim": "claim",
        "submit again with its key": "submit_with_used_key",
        "submit another with its key": "submit_with_used_key",
        "submit with its unique key": "submit_with_used_unique_key",
    }
    return "settle" if verb.startswith("settle ") else named.get(verb, verb.replace(" ", "_"))


class Reader:
    """Reads the rows past the services. Never through a second library on one SQLite file: see app/models/sqlite.py."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: Any = None

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        if not is_sqlite(self._url):
            self._connection = self._connection or await asyncpg.connect(self._url)
            return [tuple(row) for row in await self._connection.fetch(statement)]
        self._connection = self._connection or sqlite.connect(sqlite_path(self._url), isolation_level=None)
        found: list[tuple[Any, ...]] = self._connection.execute(statement).fetchall()
        return found

    async def close(self) -> None:
        if self._connection is not None:
            closing = self._connection.close()
            if closing is not None:
                await closing


class World:
    """The services on a fresh database with a clock that stands still, and the model beside them."""

    def __init__(self, services: Services, clock: FrozenClock, visited: Counter[tuple[str, str]]) -> None:
        self.services = services
        self.clock = clock
        self.visited = visited
        self.tasks: dict[int, Expected] = {}
        self.gone: list[int] = []
        self.leases: list[ClaimedTask] = []
        self._reader = Reader(services.settings.database_url)
        self._stored: dict[int, tuple[str, int | None]] = {}
        self._settled: list[tuple[int, int]] = []
        self._refused = 0
        self._steps = self._keys = 0
        services.bus.subscribe(TasksSettled, self._hear_settled)
        services.bus.subscribe(LeasesRefused, self._hear_refused)
        self._watched: dict[tuple[int, int, int], int] = {}
        self._swept_at: int | None = None
        self._swept_ahead = self._trusted_from = 0
        self._offset: float | None = None
        self._set_at: float | None = None
        self._set_back = True

    async def close(self) -> None:
        await self._reader.close()

    async def _look_at_rows(self) -> None:
        """Where chance decides, what was decided is read from the rows."""
        rows = await self._reader.rows("SELECT id, status, scheduled_at FROM tasks")
        self._stored = {row[0]: (row[1], row[2]) for row in rows}

    def _hear_settled(self, event: TasksSettled) -> None:
        if event.worker_id is not None:
            self._settled += [(one.change.id, one.change.lease) for one in event.settlements]

    def _hear_refused(self, event: LeasesRefused) -> None:
        self._refused += len(event.ids)

    @property
    def now(self) -> int:
        return to_milliseconds(self.clock())

    def _visit(self, situation: str, verb: str) -> None:
        self.visited[situation, verb] += 1

    # What is chosen from.

    def _some_id(self, choose: Choose) -> int:
        """A task of a state that is chosen first, so that rare states are met as often as common ones."""
        states = sorted({task.status for task in self.tasks.values()}) + (["gone"] if self.gone else [])
        if not states:
            return 4_000_000
        state = choose(states)
        return choose(self.gone if state == "gone" else [id_ for id_, one in self.tasks.items() if one.status == state])

    def _situation(self, task_id: int, lease: int | None = None) -> str:
        task = self.tasks.get(task_id)
        if task is None:
            return "gone"
        newer = task.status == "running" and lease is not None and lease != task.lease
        return "running under a newer lease" if newer else task.status

    def _some_lease(self, choose: Choose) -> ClaimedTask | None:
        """A claim that was ever given out, by the situation its task is in."""
        by_situation: dict[str, list[ClaimedTask]] = {}
        for claimed in self.leases:
            by_situation.setdefault(self._situation(claimed.id, claimed.lease), []).append(claimed)
        return choose(by_situation[choose(sorted(by_situation))]) if by_situation else None

    # What clients do.

    async def submit(self, choose: Choose) -> None:
        unique = choose([{}, {"unique_key": self._new_key()}])
        await self._submit(choose, self._asked(choose) | unique, choose([None, self._new_key()]))

    async def submit_with_used_key(self, choose: Choose) -> None:
        """The idempotency key of a task that is there: the same request again, or another."""
        owner = self._owner(choose, lambda task: task.idempotency_key is not None)
        if owner is None:
            asked = self._asked(choose)
            await self._submit(choose, asked, self._new_key())
            return
        same = choose([True, False])
        self._visit(owner.status, f"submit {'again' if same else 'another'} with its key")
        asked = owner.request if same else self._asked(choose) | {"payload": {"number": 99}}
        before = dict(self.tasks)
        if same:
            answer = await self.services.tasks.submit(self._prepared(asked, owner.idempotency_key))
            assert (answer.replayed, answer.task.id, str(answer.task.status)) == (True, owner.id, owner.status)
        else:
            assert await self._refusal(self._submitted(asked, owner.idempotency_key)) is IdempotencyMismatch
        assert self.tasks == before

    async def submit_with_used_unique_key(self, choose: Choose) -> None:
        holder = self._owner(choose, lambda task: task.unique_key is not None)
        if holder is None:
            asked = self._asked(choose) | {"unique_key": self._new_key()}
        else:
            self._visit(holder.status, "submit with its unique key")
            asked = self._asked(choose) | {"unique_key": holder.unique_key}
        await self._submit(choose, asked, None)

    def _new_key(self) -> str:
        self._keys += 1
        return f"key-{self._keys}"

    def _owner(self, choose: Choose, wanted: Callable[[Expected], bool]) -> Expected | None:
        owners = [task for task in self.tasks.values() if wanted(task)]
        if not owners or choose([True, False]) is False:
            return None
        state = choose(sorted({task.status for task in owners}))
        owner: Expected = choose([task for task in owners if task.status == state])
        return owner

    def _asked(self, choose: Choose) -> dict[str, Any]:
        delay, expires = choose([(None, None), (None, None), (10, None), (None, 5), (10, 25), (None, 25)])
        asked: dict[str, Any] = {
            "task_type": "echo",
            "payload": {"number": choose([1, 2])},
            "priority": choose([0, 0, -10, 50]),
            "max_attempts": choose([1, 2, 3, 5]),
        }
        if delay is not None:
            asked["scheduled_at"] = self.clock() + timedelta(seconds=delay)
        if expires is not None:
            asked["expires_at"] = self.clock() + timedelta(seconds=expires)
        wait = choose([None, 5.0, 0.0])
        if wait is not None:
            asked["retry"] = {"policy": "fixed", "base_seconds": wait, "jitter": False}
        if choose([False, False, True]):
            asked["retry_for_seconds"] = 40.0
        return asked

    def _prepared(self, asked: dict[str, Any], key: str | None = None) -> Any:
        return self.services.intake.prepare(Submission.model_validate(asked), key)

    async def _submitted(self, asked: dict[str, Any], key: str | None) -> Any:
        return await self.services.tasks.submit(self._prepared(asked, key))

    async def _submit(self, choose: Choose, asked: dict[str, Any], key: str | None) -> None:
        self._visit("none", "submit")
        error = self._fault(asked)
        if error is not None:
            assert await self._refusal(self._submitted(asked, key)) is error
            return
        answer = await self._submitted(asked, key)
        assert not answer.replayed
        self._add(answer.task.id, asked, key)

    async def bulk(self, choose: Choose) -> None:
        """Two at once, now and then with one unique key, or with one that another task holds: all or nothing."""
        self._visit("none", "bulk")
        both = [self._asked(choose), self._asked(choose)]
        held = [task.unique_key for task in self.tasks.values() if task.unique_key is not None]
        for asked in both:
            key = choose([None, "both", *held[:1]])
            if key is not None:
                asked["unique_key"] = key
        keys = [asked.get("unique_key") for asked in both]
        error = self._fault(both[0]) or self._fault(both[1])
        if error is None and keys[0] is not None and keys[0] == keys[1]:
            error = Conflict
        call = self.services.tasks.submit_all([self._prepared(asked) for asked in both])
        if error is not None:
            assert await self._refusal(call) is error
            return
        for id_, asked in zip(await call, both, strict=True):
            self._add(id_, asked, None)

    def _fault(self, asked: dict[str, Any]) -> type[AppError] | None:
        expires_at = asked.get("expires_at")
        if expires_at is not None and expires_at <= max(self.clock(), asked.get("scheduled_at") or self.clock()):
            return InvalidRequest
        return UniqueKeyTaken if self._holder(asked.get("unique_key")) is not None else None

    def _holder(self, unique_key: str | None) -> Expected | None:
        for task in self.tasks.values():
            if unique_key is not None and task.unique_key == unique_key and task.status not in TERMINAL:
                return task
        return None

    def _add(self, id_: int, asked: dict[str, Any], key: str | None) -> None:
        assert id_ not in self.tasks
        assert id_ not in self.gone, "an id was given out twice"
        scheduled_at, expires_at = (
            None if asked.get(name) is None else to_milliseconds(asked[name]) for name in ("scheduled_at", "expires_at")
        )
        waits = scheduled_at is not None and scheduled_at > self.now
        ready_at = scheduled_at if waits and scheduled_at is not None else self.now
        retry_for = asked.get("retry_for_seconds")
        self.tasks[id_] = Expected(
            id=id_,
            status="scheduled" if waits else "pending",
            priority=asked["priority"],
            rank=ready_at - asked["priority"] * STEP,
            max_attempts=asked["max_attempts"],
            created_at=self.now,
            scheduled_at=scheduled_at,
            expires_at=expires_at,
            retry_until=None if retry_for is None else ready_at + int(retry_for * SECOND),
            unique_key=asked.get("unique_key"),
            idempotency_key=key,
            request=asked,
            retry_for=None if retry_for is None else int(retry_for * SECOND),
            waits_seconds=asked["retry"]["base_seconds"] if "retry" in asked else None,
        )

    async def _refusal(self, call: Any) -> type[AppError] | None:
        try:
            await call
        except AppError as error:
            return type(error)
        return None

    async def look(self, choose: Choose) -> None:
        id_ = self._some_id(choose)
        self._visit(self._situation(id_), "look")
        task = self.tasks.get(id_)
        if task is None:
            assert await self._refusal(self.services.tasks.get(id_)) is NotFound
            return
        attempts = await self.services.tasks.attempts(id_)
        expected = list(task.history)
        if task.status in ("running", "completed"):
            outcome: Any = None if task.status == "running" else "completed"
            expected.append((task.lease, task.attempts, outcome))
        assert [(one.lease, one.attempt, one.outcome) for one in attempts] == expected

    async def cancel(self, choose: Choose) -> None:
        id_ = self._some_id(choose)
        self._visit(self._situation(id_), "cancel")
        task = self.tasks.get(id_)
        if task is None or task.status in ("completed", "failed"):
            assert await self._refusal(self.services.tasks.cancel(id_)) is (NotFound if task is None else Conflict)
            return
        await self.services.tasks.cancel(id_)
        if task.status == "running":
            task.cancel_requested_at = task.cancel_requested_at or self.now
        elif task.status != "cancelled":
            self._end(task, "cancelled")
            task.cancel_requested_at = self.now

    def _end(self, task: Expected, status: str, reason: str | None = None) -> None:
        """No task ends before it began, whatever the clock says, and none keeps checkpoints after its end."""
        task.status = status
        task.finished_at = max(self.now, task.started_at or 0)
        task.failure_reason = reason
        task.lease_expires_at = None
        task.checkpoints = 0

    async def retry(self, choose: Choose) -> None:
        id_ = self._some_id(choose)
        self._visit(self._situation(id_), "retry")
        task = self.tasks.get(id_)
        if task is None or task.status not in ("failed", "cancelled"):
            assert await self._refusal(self.services.tasks.retry(id_)) is (NotFound if task is None else Conflict)
        elif self._holder(task.unique_key) is not None:
            assert await self._refusal(self.services.tasks.retry(id_)) is UniqueKeyTaken
        else:
            await self.services.tasks.retry(id_)
            self._make_ready(task)

    def _make_ready(self, task: Expected) -> None:
        task.status = "pending"
        task.attempts = task.deaths = 0
        task.rank = self.now - task.priority * STEP
        task.scheduled_at = task.finished_at = task.expires_at = task.cancel_requested_at = task.resolved_at = None
        task.failure_reason = task.progress = None
        task.retry_until = None if task.retry_for is None else self.now + task.retry_for

    async def edit(self, choose: Choose) -> None:
        id_ = self._some_id(choose)
        self._visit(self._situation(id_), "edit")
        what = choose(["priority", "max_attempts", "later", "now"])
        given: dict[str, Any] = {
            "priority": {"priority": choose([-10, 0, 50])},
            "max_attempts": {"max_attempts": choose([1, 2, 4])},
            "later": {"scheduled_at": self.clock() + timedelta(seconds=10)},
            "now": {"scheduled_at": None},
        }[what]
        call = self.services.tasks.edit(id_, Edit(given))
        task = self.tasks.get(id_)
        ready_at = self.now + (10 * SECOND if what == "later" else 0)
        if task is None or task.status not in WAITING:
            assert await self._refusal(call) is (NotFound if task is None else Conflict)
        elif what == "max_attempts" and given["max_attempts"] <= task.attempts:
            assert await self._refusal(call) is InvalidRequest
        elif what in ("later", "now") and task.expires_at and task.started_at is None and task.expires_at <= ready_at:
            assert await self._refusal(call) is InvalidRequest
        else:
            await call
            if what == "priority":
                task.rank -= (given["priority"] - task.priority) * STEP
                task.priority = given["priority"]
            elif what == "max_attempts":
                task.max_attempts = given["max_attempts"]
            else:
                task.rank = ready_at - task.priority * STEP
                task.scheduled_at = ready_at if what == "later" else None
                if what == "now":
                    task.status = "pending"
                elif task.status == "pending":
                    task.status = "scheduled"

    async def delete(self, choose: Choose) -> None:
        id_ = self._some_id(choose)
        self._visit(self._situation(id_), "delete")
        task = self.tasks.get(id_)
        if task is None or task.status == "running":
            assert await self._refusal(self.services.tasks.delete(id_)) is (NotFound if task is None else Conflict)
        else:
            await self.services.tasks.delete(id_)
            self._forget([id_])

    def _forget(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            del self.tasks[id_]
        self.gone += ids

    # Dead letters.

    async def requeue(self, choose: Choose) -> None:
        def ready(dead: list[Expected]) -> list[Expected]:
            taken = {task.unique_key for task in self.tasks.values() if task.status not in TERMINAL}
            chosen = []
            for task in dead:
                if task.unique_key is None or task.unique_key not in taken:
                    chosen.append(task)
                    taken.add(task.unique_key)
            return chosen

        for task in await self._on_dead_letters(choose, "requeue", ready):
            self._make_ready(task)

    async def resolve(self, choose: Choose) -> None:
        for task in await self._on_dead_letters(choose, "resolve", lambda dead: dead):
            task.resolved_at = self.now

    async def purge(self, choose: Choose) -> None:
        self._forget([task.id for task in await self._on_dead_letters(choose, "purge", lambda dead: dead)])

    async def _on_dead_letters(
        self, choose: Choose, verb: str, changed: Callable[[list[Expected]], list[Expected]]
    ) -> list[Expected]:
        """Do it to up to three tasks of any state, or only try it. Returns those that are changed."""
        ids = sorted({self._some_id(choose) for _ in range(choose([1, 1, 3]))})
        for id_ in ids:
            self._visit(self._situation(id_), verb)
        dead = [self.tasks[id_] for id_ in ids if id_ in self.tasks]
        dead = [task for task in dead if task.status == "failed" and task.resolved_at is None]
        dry_run = choose([False, False, True])
        wanted = DeadFilter(ids=tuple(ids))
        letters = self.services.dead_letters
        if verb == "resolve":
            report = await letters.resolve(wanted, "seen to", dry_run=dry_run)
        else:
            report = await (letters.requeue if verb == "requeue" else letters.purge)(wanted, dry_run=dry_run)
        expected = changed(dead)
        assert (report.matched, report.changed) == (len(dead), len(expected))
        return [] if dry_run else expected

    # What workers do.

    async def claim(self, choose: Choose) -> None:
        await self._exchange(choose, [], choose([1, 2, 5]))

    async def settle(self, choose: Choose) -> None:
        """Settle up to three attempts by any claim ever given out, each with any outcome; perhaps claim with it."""
        ended: dict[tuple[int, int], Ended] = {}
        for _ in range(choose([1, 1, 2, 3])):
            claimed = self._some_lease(choose)
            if claimed is None:
                return
            word = choose(sorted(OUTCOMES))
            self._visit(self._situation(claimed.id, claimed.lease), f"settle {word}")
            task = self.tasks.get(claimed.id)
            started_at = task.started_at if task is not None and task.started_at is not None else self.now
            ended[claimed.id, claimed.lease] = Ended(
                claimed,
                choose(OUTCOMES[word]),
                from_milliseconds(started_at),
                max(0, self.now - started_at) / SECOND,
                progress=choose([None, JsonText(f'"lease {claimed.lease}"')]),
                checkpointed=task is not None and task.checkpoints > 0,
            )
        await self._exchange(choose, list(ended.values()), choose([0, 0, 2]))

    async def _exchange(self, choose: Choose, ended: list[Ended], room: int) -> None:
        self._settled, self._refused = [], 0
        held = [one for one in ended if self._held(one.task) is not None]
        wish: Any = (
            None if room == 0 else lambda heads: [Wish(tuple((one.queue, one.task_type) for one in heads), room)]
        )
        worker = choose(["w1", "w2"])
        exchange = await self.services.queue.exchange(worker, ended, wish)
        await asyncio.sleep(0)  # listeners are told while the next exchange is in the database
        assert sorted(self._settled) == sorted((one.task.id, one.task.lease) for one in held)
        assert self._refused == len(ended) - len(held)
        await self._look_at_rows()
        for one in held:
            self._settle(self.tasks[one.task.id], one)
        if room:
            for task in self._due():
                self._visit(task.status, "promoted by a claim")
                task.status = "pending"
            expected = sorted(filter(self._claimable, self.tasks.values()), key=lambda task: (task.rank, task.id))[
                :room
            ]
            assert [one.id for one in exchange.claimed] == [task.id for task in expected]
            assert {id_: len(stored) for id_, stored in exchange.checkpoints.items()} == {
                task.id: task.checkpoints for task in expected if task.checkpoints
            }
            for task, claimed in zip(expected, exchange.claimed, strict=True):
                self._visit("pending", "claim")
                self._run(task, worker)
                assert (claimed.lease, claimed.attempt) == (task.lease, task.attempts)
        self.leases = (self.leases + list(exchange.claimed))[-60:]

    def _held(self, claimed: ClaimedTask) -> Expected | None:
        task = self.tasks.get(claimed.id)
        return task if task is not None and task.holds(claimed.lease) else None

    def _due(self) -> list[Expected]:
        return [
            task
            for task in self.tasks.values()
            if task.status in ("scheduled", "retrying") and (task.scheduled_at or 0) <= self.now
        ]

    def _claimable(self, task: Expected) -> bool:
        in_time = task.expires_at is None or task.expires_at > self.now or task.started_at is not None
        return task.status == "pending" and in_time

    def _run(self, task: Expected, worker: str) -> None:
        task.status = "running"
        task.attempts += 1
        task.lease += 1
        task.worker_id = worker
        task.started_at = self.now
        task.lease_expires_at = self.now + LEASE
        task.progress = None

    def _settle(self, task: Expected, ended: Ended) -> None:
        outcome = ended.outcome
        if isinstance(outcome, Completed):
            self._end(task, "completed")
            task.result = outcome.result
            task.runs_alone = 0
            task.progress = ended.progress or task.progress
            return
        self._settle_unhappily(task, outcome)
        task.progress = (ended.progress or task.progress) if task.status in TERMINAL else None

    def _settle_unhappily(self, task: Expected, outcome: Outcome) -> None:
        task.history.append((task.lease, task.attempts, outcome.word))
        alone, task.runs_alone = task.runs_alone, 0
        task.lease_expires_at = None
        if task.cancel_requested_at is not None or isinstance(outcome, Cancelled):
            self._end(task, "cancelled")
        elif isinstance(outcome, Released):
            task.status = "pending"
            task.attempts -= 1
            task.runs_alone = int(alone or outcome.runs_alone)
        elif isinstance(outcome, Snoozed):
            task.attempts -= 1
            self._wait(task, "scheduled", self.now + int(outcome.after_seconds * SECOND))
        else:
            self._fail_or_retry(task, outcome)

    def _wait(self, task: Expected, status: str, until: int) -> None:
        task.wait = (task.lease, max(self.now, task.started_at or 0), until - self.now)
        task.status = status
        task.scheduled_at = until
        task.rank = until - task.priority * STEP

    def _fail_or_retry(self, task: Expected, outcome: Outcome) -> None:
        task.deaths += isinstance(outcome, Lost)
        stored = self._stored[task.id]
        asked = outcome.after_seconds if isinstance(outcome, Errored) else None
        wait = asked if asked is not None else task.waits_seconds
        shortest, longest = (0.0, 2.0 ** (task.attempts - 1)) if wait is None else (wait, wait)
        reason = {"error": "exhausted", "timeout": "timeout", "lost": "lost"}[outcome.word]
        if isinstance(outcome, Errored) and not outcome.retryable:
            self._end(task, "failed", "error")
        elif isinstance(outcome, Lost) and task.deaths >= POISON_AFTER:
            self._end(task, "failed", "poisoned")
        elif task.attempts >= task.max_attempts:
            self._end(task, "failed", reason)
        elif task.retry_until is not None and self.now + shortest * SECOND > task.retry_until:
            self._end(task, "failed", reason)
        elif task.retry_until is not None and self.now + longest * SECOND > task.retry_until and stored[0] == "failed":
            self._end(task, "failed", reason)  # how long it would have waited was chance
        else:
            until = stored[1] or 0
            assert self.now + int(shortest * SECOND) <= until <= self.now + longest * SECOND
            assert task.retry_until is None or until <= task.retry_until
            self._wait(task, "retrying", until)

    async def renew(self, choose: Choose) -> None:
        leases = [one for one in (self._some_lease(choose) for _ in range(choose([1, 2]))) if one is not None]
        for one in leases:
            self._visit(self._situation(one.id, one.lease), "renew")
        renewals = await self.services.queue.renew({(one.id, one.lease) for one in leases})
        held = {task.id: task for task in map(self._held, leases) if task is not None}
        assert {(one.id, one.lease, one.cancel_requested) for one in renewals} == {
            (task.id, task.lease, task.cancel_requested_at is not None) for task in held.values()
        }
        for task in held.values():
            task.lease_expires_at = self.now + LEASE

    async def progress(self, choose: Choose) -> None:
        one = self._some_lease(choose)
        if one is not None:
            self._visit(self._situation(one.id, one.lease), "progress")
            said = JsonText(f"{choose([10, 50])}")
            await self.services.queue.save_progress([(one.id, one.lease, said)])
            task = self._held(one)
            if task is not None:
                task.progress = said

    async def checkpoint(self, choose: Choose) -> None:
        one = self._some_lease(choose)
        if one is not None:
            self._visit(self._situation(one.id, one.lease), "checkpoint")
            task = self._held(one)
            stored = await self.services.queue.add_checkpoint(one.id, one.lease, JsonText("[1]"))
            assert stored is (task is not None)
            if task is not None:
                task.checkpoints += 1

    # Upkeep and time.

    async def promote(self, choose: Choose) -> None:
        assert await self.services.chores.promote() is False
        for task in self._due():
            self._visit(task.status, "promote")
            task.status = "pending"

    async def sweep(self, choose: Choose) -> None:
        """A lease is over whose end has just passed by a clock that was not set for a lease; or that nobody renewed for
        its whole length while it stood out: its end long past, or further away than any can be."""
        assert await self.services.chores.sweep() is False
        await self._look_at_rows()
        ticks, known = round(self.clock.monotonic() * SECOND), self._watched
        since = 0 if self._swept_at is None else ticks - self._swept_at
        ahead = self.now - ticks
        if self._swept_at is None or abs(ahead - self._swept_ahead) > APART:
            self._trusted_from = ticks + LEASE
        self._swept_at, self._swept_ahead, self._watched = ticks, ahead, {}
        for task in self.tasks.values():
            end = task.lease_expires_at or 0
            if task.status == "running" and (end < self.now or end > self.now + LEASE + APART):
                key = (task.id, task.lease, end)
                self._watched[key] = known.get(key, ticks)
        for key, seen_at in self._watched.items():
            passed = ticks >= self._trusted_from and self.now - since - APART <= key[2] < self.now
            if passed or ticks - seen_at > LEASE:
                task = self.tasks[key[0]]
                self._visit("running", "sweep")
                self._settle_unhappily(task, Lost("the lease ran out"))
                if task.status not in TERMINAL:
                    task.progress = None

    async def expire(self, choose: Choose) -> None:
        assert await self.services.chores.expire() is False
        for task in self.tasks.values():
            unstarted = task.status in ("pending", "scheduled") and task.started_at is None
            if unstarted and task.expires_at is not None and task.expires_at <= self.now:
                self._visit(task.status, "expire")
                self._end(task, "failed", "expired")

    async def prune(self, choose: Choose) -> None:
        assert await self.services.upkeep.do("prune") is False
        self._look_at_the_clock()
        if self._set_at is not None and self.clock.monotonic() - self._set_at < STEADY:
            return
        old = []
        for task in self.tasks.values():
            kept = KEEP_COMPLETED if task.status == "completed" else KEEP_OTHERS
            keyed = task.idempotency_key is not None and task.created_at >= self.now - KEEP_KEYED
            if task.finished_at is not None and task.finished_at < self.now - kept and not keyed:
                self._visit(task.status, "prune")
                old.append(task.id)
        self._forget(old)

    def _look_at_the_clock(self) -> None:
        offset, before = self.clock().timestamp() - self.clock.monotonic(), self._offset
        self._offset = offset
        if before is not None and abs(offset - before) > APART / SECOND:
            self._set_at = self.clock.monotonic()
            self._set_back = self._set_back or offset < before

    async def bring_back(self, choose: Choose) -> None:
        """Nobody became ready later than now, and no wait of an attempt that has ended began later than now."""
        while await self.services.chores.bring_back():
            pass
        self._look_at_the_clock()
        if not self._set_back:
            return
        self._set_back = False
        for task in self.tasks.values():
            if task.status == "pending" and task.rank + task.priority * STEP > self.now + APART:
                self._visit("pending", "bring back")
                task.rank = self.now - task.priority * STEP
            elif task.status in ("scheduled", "retrying") and task.wait is not None and task.wait[0] == task.lease:
                _, ended_at, length = task.wait
                as_begun = abs((task.scheduled_at or 0) - ended_at - length) < SECOND
                if ended_at > self.now + APART and as_begun:
                    self._visit(task.status, "bring back")
                    task.scheduled_at = self.now + length
                    task.rank = task.scheduled_at - task.priority * STEP

    async def wait(self, choose: Choose) -> None:
        """Time goes on."""
        self.clock.forward(choose([0.001, 1, 5, 10, 25, 31, 31, 60, 8 * 86400, 31 * 86400]))

    async def set_clock(self, choose: Choose) -> None:
        """Somebody sets the wall clock."""
        self.clock.set(choose([-3, -1, 3, 3600, -3600, -86400]))

    # What must hold after every step.

    async def compare(self) -> None:
        """Rows, history and checkpoints are those of the model, and no promise is broken."""
        rows = await self._reader.rows(f"SELECT {', '.join(COLUMNS)} FROM tasks ORDER BY id")
        stored = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows}
        expected = {id_: {name: getattr(task, name) for name in COLUMNS} for id_, task in sorted(self.tasks.items())}
        assert stored == expected, "\n".join(_differences(stored, expected))
        history: dict[int, list[tuple[int, int, str]]] = {id_: [] for id_ in self.tasks}
        for id_, *row in await self._reader.rows(
            "SELECT task_id, lease, attempt, outcome FROM task_attempts ORDER BY task_id, lease"
        ):
            history[id_].append(tuple(row))
        told = {id_: task.history for id_, task in self.tasks.items()}
        assert history == told, f"history {history}, not {told}"
        kept = dict(await self._reader.rows("SELECT task_id, count(*) FROM checkpoints GROUP BY task_id"))
        meant = {id_: task.checkpoints for id_, task in self.tasks.items() if task.checkpoints}
        assert kept == meant, f"checkpoints {kept}, not {meant}"
        self._steps += 1
        if self._steps % CHECKED_EVERY == 0:
            async with self.services.database.read() as connection:
                for check in CHECKS:
                    assert check.final or await checks.breaking(connection, check) == [], check.promise


def _differences(stored: dict[int, dict[str, Any]], expected: dict[int, dict[str, Any]]) -> list[str]:
    lines = [f"task {id_}: is there, should not be" for id_ in stored.keys() - expected.keys()]
    for id_, task in expected.items():
        row = stored.get(id_, {})
        lines += [
            f"task {id_}: {name} {row.get(name)!r}, not {task[name]!r}" for name in task if row.get(name) != task[name]
        ]
    return lines


VERBS = (
    *("submit", "submit", "submit_with_used_key", "submit_with_used_unique_key", "bulk", "look", "cancel", "retry"),
    *("edit", "delete", "requeue", "resolve", "purge", "claim", "claim", "settle", "settle", "settle", "renew"),
    *(
        "progress",
        "checkpoint",
        "promote",
        "sweep",
        "sweep",
        "bring_back",
        "expire",
        "prune",
        "wait",
        "wait",
        "set_clock",
    ),
)
