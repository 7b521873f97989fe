"""What the pool does with what a runner says, without processes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.core.attempt_log import LogLimits
from app.core.clock import system_clock
from app.core.events import EventBus
from app.core.lifecycle import Completed, Released
from app.core.task import ClaimedTask, JsonText
from app.services.executors import RunnerSetup
from app.services.registry import load_executors
from app.workers.attempt_logs import AttemptLogs
from app.workers.frames import FrameBuffer, encode
from app.workers.pool import RunnerPool
from app.workers.process import Given, RunnerProcess
from app.workers.roster import Roster, RunnerLimits, RunnerOptions

MODULES = ("tests.sample_executors",)


class Said(asyncio.WriteTransport):
    """Keeps what is said to the runner."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []

    def write(self, data: Any) -> None:
        self.messages += FrameBuffer().feed(bytes(data))

    def is_closing(self) -> bool:
        return False


async def never(*_: Any) -> bool:
    raise AssertionError("nothing is stored here")


def task(id_: int) -> ClaimedTask:
    return ClaimedTask(id_, 1, "echo", "default", JsonText("{}"), 1, 10.0, id_, False)


def pool_with(limits: RunnerLimits, wake: Callable[[], None]) -> tuple[RunnerPool, RunnerProcess, Said]:
    """A pool with one runner that is ready, and what is said to it."""
    options = RunnerOptions(1, RunnerSetup(MODULES), 5.0, limits)
    logs = AttemptLogs(LogLimits(500, 2**17), system_clock, str, lambda: None)
    pool = RunnerPool(
        *(options, load_executors(MODULES), EventBus(), system_clock, "worker"),
        wake=wake,
        store_checkpoint=never,
        keep_file=never,
        logs=logs,
    )
    runner, said = RunnerProcess(pool), Said()
    runner.connection_made(said)
    runner.ready = True
    pool.roster.runners.append(runner)
    return pool, runner, said


async def test_a_runner_that_is_replaced_gives_back_what_it_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.Event()

    async def start(_: Roster) -> None:
        started.set()

    monkeypatch.setattr(Roster, "_start_another", start)
    pool, runner, said = pool_with(RunnerLimits(most_memory_bytes=1), lambda: None)
    pool.place([task(id_) for id_ in (1, 2, 3)], {})
    assert [list(message) for message in said.messages] == [["run"]]
    runner.data_received(encode({"done": [[1, 1, 0.001, "completed", "1"]], "memory": 2}))
    assert said.messages[1:] == [{"recall": True}]
    runner.data_received(encode({"returned": [[2, 1], [3, 1]]}))
    assert [type(one.outcome) for one in pool.ended] == [Completed, Released, Released]
    assert not runner.given
    await asyncio.wait_for(started.wait(), 5)


def test_ends_are_gathered_while_the_runner_has_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)  # nothing is slow here
    woken = []
    pool, runner, _ = pool_with(RunnerLimits(), lambda: woken.append(len(pool.ended)))

    def ends(id_: int) -> None:
        runner.data_received(encode({"done": [[id_, 1, 0.011, "completed", "1"]]}))

    pool.place([task(1)], {})
    ends(1)
    assert woken == [1]
    pool.place([task(id_) for id_ in range(2, 18)], {})
    for id_ in range(2, 18):
        assert pool.has_room, "18 of 11 ms each are held ahead"
        assert pool.runs_short == (len(runner.given) < 10), "and 0.1 s are enough"
        ends(id_)
    assert woken == [1, *range(8, 18)]


def test_shared_attempts_are_over_sooner_the_more_of_them_run_at_once() -> None:
    runner = RunnerProcess(pool_with(RunnerLimits(), lambda: None)[0])
    runner._concurrency = 16
    runner.give([Given(task(id_), "shared", expected_seconds=0.01) for id_ in range(20)])
    assert runner.load.seconds == pytest.approx(0.0125)
    for id_ in range(20):
        runner.take((id_, 1))
    assert runner.load.seconds == 0.0
