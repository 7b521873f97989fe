"""`Crew`: the runners of one batch. Each item runs in a child process, so what it does to that process costs it alone.

Like the worker's pool it holds short items a little ahead of each child. When a child dies, whatever was inside it is
tried once more, alone; an item whose child dies a second time is lost.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

from app.core import slots
from app.core.lifecycle import Lost, Outcome
from app.core.slots import Kind
from app.core.task import ClaimedTask, JsonText
from app.services.executors import Context, Executor, StopRequested
from app.workers.background import Background
from app.workers.frames import file_from_wire
from app.workers.outcomes import TIME_LIMIT, outcome_of_stop, reported
from app.workers.process import Given, RunnerProcess

MOST_DEATHS = 2
MOST_FAILED_STARTS = 5
PATIENCE_SECONDS = 1.0
"""An item that waits in a child this long behind something slow is taken back for others to run."""
SUSPECT_CHILDREN = 4
"""Items of `async def` executors share one child; when it dies with many inside, so many try them one by one."""


@dataclass(slots=True)
class Try:
    """One run of one item. `text` is its payload as JSON, `deaths` counts the children that died with it inside."""

    index: int
    text: str
    attempt: int = 1
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """What a crew does: which executor, how many items at a time, how long each may take and has to obey a stop."""

    executor: Executor
    concurrency: int
    timeout_seconds: float
    grace_seconds: float

    @property
    def kind(self) -> Kind:
        return "shared" if self.executor.shares_runner else "plain"


class CrewBroken(Exception):
    """No child can be started; the text says why."""


class Crew:
    """Runs tries of items in children. What ended gathers until `take_ended`; `news` is set whenever something happened."""

    def __init__(self, job: Job, context: Context) -> None:
        self._job = job
        self._context = context
        self._ended: list[tuple[Try, Outcome]] = []
        self._runners: list[RunnerProcess] = []
        self._tries: dict[int, Try] = {}
        self._again: deque[Try] = deque()
        self._alone: deque[Try] = deque()
        self._number = 0
        self._wanted = 0
        self._failed_starts = 0
        self._start_after = 0.0
        self._trouble = ""
        self._mean_seconds: float | None = None
        self._largest = 0
        self._ending = False
        self._starting = Background()
        self._keeping = Background()
        self.news = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill every child, at once."""
        self._ending = True
        self._keeping.cancel()
        await self._starting.ended()
        await self._keeping.ended()
        for runner in self._runners:
            runner.kill()
        await asyncio.gather(*(runner.ended() for runner in list(self._runners)))

    @property
    def running(self) -> int:
        """How many items are in the children now."""
        return len(self._tries)

    def take_ended(self) -> list[tuple[Try, Outcome]]:
        """The tries that have ended since the last call, and how."""
        ended, self._ended = self._ended, []
        return ended

    def grow(self, items: int) -> None:
        """Have the children that so many items need, if there are fewer."""
        self._wanted = max(self._wanted, 1 if self._job.kind == "shared" else min(self._job.concurrency, items))
        self._fill_up()

    def feed(self, fresh: Callable[[], Try | None]) -> None:
        """Give the children what they have room for: first what has to run again, then what `fresh` gives, until None."""
        for runner in self._runners:
            if runner.ready:
                batch = self._batch_for(runner, fresh)
                if batch:
                    runner.give([self._given(one) for one in batch])

    def tick(self) -> None:
        """Look at the clocks, replace the dead. Raises CrewBroken if no child can be started."""
        if self._failed_starts >= MOST_FAILED_STARTS:
            raise CrewBroken(f"no runner for the items can be started: {self._trouble}")
        self._fill_up()
        now = time.monotonic()
        for runner in self._runners:
            self._enforce(runner, now)
            if any(given.began is None and now - given.given_at > PATIENCE_SECONDS for given in runner.given.values()):
                runner.recall()

    def finish(self) -> None:
        """Start nothing more: what has not begun is forgotten, what runs may end."""
        self._ending = True
        self._again.clear()
        self._alone.clear()
        for runner in self._runners:
            runner.recall()

    # What the children say.

    def heard(self, runner: RunnerProcess, message: dict[str, Any]) -> None:
        runner.ready = runner.ready or "ready" in message
        if "broken" in message:
            self._trouble, self._failed_starts = message["broken"], MOST_FAILED_STARTS
        now = time.monotonic()
        for id_, number, ago in message.get("running", ()):
            if given := runner.given.get((id_, number)):
                given.began = now - ago
        for _, number, text, fields in message.get("log", ()):
            self._log(text, self._tries.get(number), fields)
        for asked, *_ in message.get("checkpoint", ()):
            runner.acknowledge(asked, True)  # an item that is interrupted starts over
        for asked, _, _, file, temporary in message.get("file", ()):
            self._keeping.start(self._keep(runner, asked, file, temporary))
        for id_, number, seconds, *words in message.get("done", ()):
            if given := runner.take((id_, number)):
                self._learn(seconds)
                self._end(self._tries.pop(number), reported(given, words))
        for id_, number in message.get("returned", ()):
            if runner.take((id_, number)):
                self._take_back(self._tries.pop(number))
        self.news.set()

    def gone(self, runner: RunnerProcess, evidence: str) -> None:
        inside = runner.take_all()
        self._runners.remove(runner)
        for given in inside:
            self._bury(self._tries.pop(given.task.lease), given, runner, evidence)
        if not inside:
            self._note_failed_start(evidence)
        if self._job.kind == "shared":
            self._wanted = max(self._wanted, min(len(self._alone), self._job.concurrency, SUSPECT_CHILDREN))
        self.news.set()

    def printed(self, runner: RunnerProcess, line: str, inside: Sequence[Given]) -> None:
        # A child of a plain executor runs the first; in a shared one it may have been any.
        one = self._tries.get(inside[0].task.lease) if inside and self._job.kind == "plain" else None
        self._log("printed", one, {"line": line})

    def dropped(self, runner: RunnerProcess, lines: int) -> None:
        self._log("an item printed more than is logged", None, {"lines_dropped": lines})

    def _log(self, text: str, one: Try | None, fields: dict[str, Any]) -> None:
        item = {} if one is None else {"item": one.index}
        with contextlib.suppress(StopRequested):  # whoever drives the crew will see it
            self._context.log(text, **fields | item)

    async def _keep(self, runner: RunnerProcess, asked: int, file: dict[str, Any], temporary: bool) -> None:
        stored = False
        with contextlib.suppress(StopRequested):
            await self._context.keep_file_async(file_from_wire(file), temporary=temporary)
            stored = True
        runner.acknowledge(asked, stored)

    def _bury(self, one: Try, given: Given, runner: RunnerProcess, evidence: str) -> None:
        if given.stop_reason is not None and (self._job.kind == "plain" or one.deaths):
            self._end(one, outcome_of_stop(given))
        elif given.stop_reason is None and runner.guilty is not None:
            self._take_back(one)
        else:
            # It died by itself, or it shared a loop that one of those whose time was up kept from going on: none of the
            # others could obey either. Alone it will be seen which one it was.
            one.deaths += 1
            if one.deaths >= MOST_DEATHS:
                self._end(one, Lost(f"{evidence}, {MOST_DEATHS} times"))
            else:
                self._take_back(one)

    def _end(self, one: Try, outcome: Outcome | None) -> None:
        assert outcome is not None  # the time limit, the only reason to stop given here, has one
        self._ended.append((one, outcome))

    def _take_back(self, one: Try) -> None:
        if not self._ending:
            (self._alone if one.deaths else self._again).append(one)

    # Giving.

    def _batch_for(self, runner: RunnerProcess, fresh: Callable[[], Try | None]) -> list[Try]:
        if self._ending or runner.load.reserved:
            return []
        if self._alone:
            # Until every suspect has a child of its own the others finish what they have: one will soon be idle.
            full = self._job.kind == "shared" and self.running >= self._job.concurrency
            return [] if runner.given or full else [self._alone.popleft()]
        room = self._room(runner)
        batch = [self._again.popleft() for _ in range(min(room, len(self._again)))]
        return [*batch, *islice(iter(fresh, None), room - len(batch))]

    def _room(self, runner: RunnerProcess) -> int:
        load = runner.load
        ahead = 0 if load.slow else slots.ahead(self._mean_seconds, self._largest)
        if self._job.kind == "shared":
            # With several children what is held ahead of one would run beside what runs in another.
            return max(0, self._job.concurrency + (ahead if self._wanted == 1 else 0) - self.running)
        # Half empty before it is filled again, so that a frame carries many.
        return 1 + ahead - load.plain if load.plain <= ahead // 2 else 0

    def _given(self, one: Try) -> Given:
        self._number += 1
        self._tries[self._number] = one
        self._largest = max(self._largest, len(one.text))
        executor, trace = self._job.executor, self._context.trace
        task = ClaimedTask(
            # The batch's own id, with a number of its own for each try: items that look at `task_id` see their task.
            id=self._context.task_id,
            lease=self._number,
            task_type=executor.task_type,
            queue="",
            payload=JsonText(one.text),
            attempt=one.attempt,
            timeout_seconds=self._job.timeout_seconds,
            rank=0,
            runs_alone=one.deaths > 0,
            traceparent=None if trace is None else trace.parent,
            tracestate=None if trace is None else trace.state,
        )
        return Given(task, self._job.kind)

    def _enforce(self, runner: RunnerProcess, now: float) -> None:
        for given in list(runner.given.values()):
            if given.began is None:
                continue
            if given.kill_at is not None and now >= given.kill_at:
                runner.kill(given)
                return
            if now - given.began >= self._job.timeout_seconds:
                runner.stop([given], TIME_LIMIT, now + self._job.grace_seconds)

    def _learn(self, seconds: float) -> None:
        self._failed_starts = 0
        mean = self._mean_seconds
        self._mean_seconds = seconds if mean is None else 0.8 * mean + 0.2 * seconds

    # Beginnings.

    def _fill_up(self) -> None:
        if not self._ending and time.monotonic() >= self._start_after:
            for _ in range(len(self._runners) + len(self._starting), self._wanted):
                self._starting.start(self._start())

    async def _start(self) -> None:
        setup = self._context.setup
        runner = RunnerProcess(self, output=self)
        try:
            await runner.start(replace(setup, concurrency=self._job.concurrency if self._job.kind == "shared" else 1))
        except OSError as error:  # no memory or no process to be had just now
            self._note_failed_start(str(error))
        else:
            self._runners.append(runner)

    def _note_failed_start(self, trouble: str) -> None:
        self._trouble = trouble
        self._failed_starts += 1
        self._start_after = time.monotonic() + 0.05 * 2**self._failed_starts
