"""Who takes the place of a runner, without processes."""

import asyncio
import time
from typing import Any

import pytest

from app.core.events import EventBus, RunnerDied, RunnersFailing
from app.core.slots import Load
from app.services.executors import RunnerSetup
from app.workers.roster import FAILED_STARTS, Roster, RunnerLimits, RunnerOptions
from tests.conftest import until


class Fake:
    """A runner that starts if it is told so."""

    pid = 1
    load = Load()

    def __init__(self, start: Any) -> None:
        self._start = start
        self.given: dict[tuple[int, int], Any] = {}
        self.ready = self.retiring = self.killed = False
        self.guilty: Any = None
        self.finished = 0
        self.recalled = 0
        self.started_at = time.monotonic()

    async def start(self, *_: Any) -> None:
        await self._start()

    def recall(self) -> None:
        self.recalled += 1

    def kill(self, guilty: Any = None) -> None:
        self.killed = True

    async def ended(self) -> None:
        assert self.killed, "nobody would ever end it"


async def starts() -> None:
    return


async def fails() -> None:
    raise OSError("no process to be had")


class Told:
    """A roster of fakes, and what it has told."""

    def __init__(self, processes: int = 1, limits: RunnerLimits = RunnerLimits()) -> None:  # noqa: B008 it is frozen
        self.start: Any = starts
        self.events: list[object] = []
        bus = EventBus()
        for kind in (RunnerDied, RunnersFailing):
            bus.subscribe(kind, self.events.append)
        options = RunnerOptions(processes, RunnerSetup(), 5.0, limits)
        self.roster = Roster(options, bus, "worker", lambda: Fake(lambda: self.start()))  # type: ignore[arg-type,return-value]

    @property
    def fakes(self) -> list[Any]:
        return self.roster.runners


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_closing_waits_for_no_pause() -> None:
    told = Told()
    await told.roster.open()
    told.start = fails
    told.roster._pause_seconds = 30.0
    (dead,) = told.fakes
    told.roster.gone(dead, "it died", 0)
    await settle()
    assert told.fakes == [], "it waits to start another"
    async with asyncio.timeout(5):
        await told.roster.close()


async def test_one_that_is_started_while_all_are_closed_does_not_outlive_them() -> None:
    told = Told()
    await told.roster.open()
    goes_on = asyncio.Event()
    told.start = goes_on.wait
    (dead,) = told.fakes
    dead.ready, dead.started_at = True, time.monotonic() - 60
    told.roster.gone(dead, "it died", 0)
    await settle()
    (successor,) = told.fakes
    closing = asyncio.create_task(told.roster.close())
    await settle()
    goes_on.set()
    await closing
    assert successor.killed


async def test_runners_that_never_become_ready_are_told_of_once() -> None:
    told = Told()
    await told.roster.open()
    for number in range(FAILED_STARTS + 1):
        assert told.roster.failing is (number >= FAILED_STARTS)
        (dead,) = told.fakes
        told.roster._pause_seconds = 0.0
        told.roster.gone(dead, "it exited with status 7", 0)
        await until(lambda: told.fakes)
    assert [event for event in told.events if isinstance(event, RunnersFailing)] == [
        RunnersFailing("worker", "it exited with status 7")
    ]
    told.roster.ready(told.fakes[0])
    assert not told.roster.failing
    await told.roster.close()


@pytest.mark.parametrize(
    ("limits", "memory", "out_of_memory", "replaced"),
    [
        (RunnerLimits(), 10**12, False, False),
        (RunnerLimits(), 0, True, True),
        (RunnerLimits(most_memory_bytes=100), 100, False, False),
        (RunnerLimits(most_memory_bytes=100), 101, False, True),
        (RunnerLimits(most_tasks=4), 0, False, False),
        (RunnerLimits(most_tasks=3), 0, False, True),
    ],
)
async def test_one_that_is_worn_is_replaced_once(
    limits: RunnerLimits, memory: int, *, out_of_memory: bool, replaced: bool
) -> None:
    told = Told(limits=limits)
    await told.roster.open()
    (worn,) = told.fakes
    worn.ready, worn.finished, worn.given = True, 3, {(1, 1): None}
    for _ in range(2):
        told.roster.retire_if_worn(worn, memory, out_of_memory=out_of_memory)
        await settle()
    assert (worn.retiring, worn.recalled, len(told.fakes) == 2) == (replaced, int(replaced), replaced)
    assert not worn.killed, "what is in it may end"
    worn.given.clear()
    told.roster.end_if_done(worn)
    assert worn.killed is replaced
    await told.roster.close()


async def test_one_that_takes_nothing_more_is_replaced_although_its_last_attempts_go_on() -> None:
    """They share it, and one of them may last for hours: what others would have beside it, a successor has."""
    told = Told(limits=RunnerLimits(most_tasks=4))
    await told.roster.open()
    (last,) = told.fakes
    last.finished, last.given, last.load = 2, {(1, 1): None}, Load(shared=1)
    told.roster.retire_if_used_up(last)
    assert not last.retiring, "it may have one more"
    last.finished = 3
    told.roster.retire_if_used_up(last)
    await settle()
    assert (last.retiring, len(told.fakes)) == (True, 2)
    await told.roster.close()


async def test_what_retires_is_never_more_than_what_serves() -> None:
    told = Told(processes=2)
    await told.roster.open()
    for one in list(told.fakes):
        one.given = {(1, 1): None}
        told.roster.retire_if_worn(one, 0, out_of_memory=True)
    await settle()
    assert len(told.fakes) == 4
    third = told.roster.serving[0]
    third.given = {(2, 1): None}  # type: ignore[dict-item]
    told.roster.retire_if_worn(third, 0, out_of_memory=True)
    assert not third.retiring, "two that finish what is in them run beside two that serve already"
    await told.roster.close()
