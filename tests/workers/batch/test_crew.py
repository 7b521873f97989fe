"""Who is given what, and who is to blame: the crew with children that are played by the tests."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import hypothesis
import pytest
from hypothesis import strategies as st

from app.core.lifecycle import Completed, Lost, TimedOut
from app.services.executors import Context, RecordedReports
from app.services.registry import load_executors
from app.workers.batch.crew import Crew, Job, Try
from app.workers.process import Given, RunnerProcess

EXECUTORS = load_executors(["tests.batch_executors"])


class PlayedCrew(Crew):
    """Its children are no processes: they keep what they are given, and the test says what becomes of it."""

    def __init__(self, task_type: str, concurrency: int, ahead: int = 0) -> None:
        job = Job(EXECUTORS[task_type], concurrency, timeout_seconds=10, grace_seconds=1)
        super().__init__(job, Context(task_id=5, reports=RecordedReports()))
        self._mean_seconds = 0.2 / ahead if ahead else None
        self.grow(100)

    def _learn(self, seconds: float) -> None:
        """As many stay ahead as the test says."""

    def _fill_up(self) -> None:
        while not self._ending and len(self._runners) < self._wanted:
            self._runners.append(RunnerProcess(self, output=self))

    @property
    def children(self) -> list[RunnerProcess]:
        return self._runners

    def all_ready(self) -> None:
        for runner in list(self._runners):
            self.heard(runner, {"ready": True})

    def complete(self, runner: RunnerProcess, given: Given) -> None:
        self.heard(runner, {"done": [[*given.key, 0.002, "completed", "null"]]})

    def inside(self) -> list[list[int]]:
        """The indexes of the items in each child."""
        return [[self._tries[given.task.lease].index for given in runner.given.values()] for runner in self._runners]


def source(number: int) -> Callable[[], Try | None]:
    items = (Try(index, "{}") for index in range(number))
    return lambda: next(items, None)


async def test_a_child_that_is_not_ready_gets_nothing() -> None:
    crew = PlayedCrew("deed", 2)
    crew.feed(source(5))
    assert crew.inside() == [[], []]
    crew.all_ready()
    crew.feed(source(5))
    assert crew.inside() == [[0], [1]]


async def test_short_items_are_held_ahead_and_filled_up_when_half_are_done() -> None:
    crew = PlayedCrew("deed", 1, ahead=10)
    crew.all_ready()
    fresh = source(100)
    crew.feed(fresh)
    (child,) = crew.children
    assert crew.inside() == [list(range(11))]
    for given in list(child.given.values())[:5]:
        crew.complete(child, given)
    crew.feed(fresh)
    assert len(child.given) == 6
    crew.complete(child, next(iter(child.given.values())))
    crew.feed(fresh)
    assert len(child.given) == 11


async def test_a_suspect_is_given_to_a_child_that_has_nothing_else_and_gets_no_company() -> None:
    crew = PlayedCrew("deed", 2, ahead=2)
    crew.all_ready()
    fresh = source(100)
    crew.feed(fresh)
    assert crew.inside() == [[0, 1, 2], [3, 4, 5]]
    crew.gone(crew.children[0], "it died")
    crew.tick()
    crew.feed(fresh)
    assert crew.inside() == [[3, 4, 5], []]  # the one that has something finishes that, the new one is not ready
    crew.all_ready()
    crew.feed(fresh)
    assert crew.inside() == [[3, 4, 5], [0]]
    for given in list(crew.children[0].given.values()):
        crew.complete(crew.children[0], given)
    crew.feed(fresh)
    assert crew.inside() == [[1], [0]]
    crew.feed(fresh)
    assert crew.inside() == [[1], [0]]
    for runner in crew.children:
        crew.complete(runner, next(iter(runner.given.values())))
    crew.feed(fresh)
    assert crew.inside() == [[2], [6, 7, 8]]  # every suspect has a child, so the other one is free for company


async def test_those_who_waited_behind_one_that_was_killed_for_its_time_limit_are_no_suspects() -> None:
    crew = PlayedCrew("deed", 1, ahead=2)
    crew.all_ready()
    fresh = source(100)
    crew.feed(fresh)
    (child,) = crew.children
    slow = next(iter(child.given.values()))
    slow.began = time.monotonic() - 10.5
    crew.tick()
    assert slow.stop_reason == "the time limit is up"
    slow.kill_at = time.monotonic()
    crew.tick()
    assert child.guilty is slow
    crew.gone(child, "it was killed")
    assert crew.take_ended() == [(Try(0, "{}"), TimedOut(10))]
    crew.tick()
    crew.all_ready()
    crew.feed(fresh)
    assert crew.inside() == [[1, 2, 3]]
    assert not crew._tries[max(crew._tries)].deaths


async def test_what_waits_behind_something_slow_is_taken_back_and_given_to_others_first() -> None:
    crew = PlayedCrew("deed", 2, ahead=2)
    crew.all_ready()
    fresh = source(100)
    crew.feed(fresh)
    first, second = crew.children
    assert crew.inside() == [[0, 1, 2], [3, 4, 5]]
    crew.heard(first, {"returned": [list(given.key) for given in list(first.given.values())[1:]]})
    for given in list(second.given.values()):
        crew.complete(second, given)
    next(iter(first.given.values())).began = time.monotonic() - 1  # so slow that nothing is held behind it
    crew.feed(fresh)
    assert [crew.inside()[0], crew.inside()[1][:2]] == [[0], [1, 2]]


async def test_a_finished_crew_starts_nothing_and_forgets_what_has_not_begun() -> None:
    crew = PlayedCrew("deed", 1, ahead=2)
    crew.all_ready()
    crew.feed(source(100))
    (child,) = crew.children
    crew.finish()
    crew.heard(child, {"returned": [list(given.key) for given in list(child.given.values())[1:]]})
    crew.feed(source(100))
    assert (crew.inside(), crew.running) == ([[0]], 1)
    crew.complete(child, next(iter(child.given.values())))
    assert [(one.index, type(outcome)) for one, outcome in crew.take_ended()] == [(0, Completed)]
    assert crew.running == 0


@pytest.mark.parametrize("task_type", ["deed", "deed_shared"])
@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    killers=st.sets(st.integers(0, 24), max_size=8),
    concurrency=st.integers(1, 6),
    ahead=st.sampled_from([0, 3, 20]),
    choices=st.randoms(use_true_random=False),
)
def test_only_those_who_kill_are_lost_and_everybody_ends_once(
    task_type: str, killers: set[int], concurrency: int, ahead: int, choices: Random
) -> None:
    """Children take items in order (or several at a time), tell of some ends before they die and not of others."""

    async def play() -> None:
        crew = PlayedCrew(task_type, concurrency, ahead)
        fresh = source(25)
        ends: Counter[int] = Counter()
        deaths: Counter[int] = Counter()
        while sum(ends.values()) < 25:
            crew.tick()
            crew.all_ready()
            crew.feed(fresh)
            busy = [runner for runner in crew.children if runner.given]
            assert busy, "nothing runs, and not everything has ended"
            runner = choices.choice(busy)
            alone = [given for given in runner.given.values() if given.task.runs_alone]
            assert not alone or len(runner.given) == 1
            _run(crew, runner, killers, deaths, choices)
            for one, outcome in crew.take_ended():
                ends[one.index] += 1
                assert isinstance(outcome, Lost if one.index in killers else Completed)
        assert ends == dict.fromkeys(range(25), 1)
        # One that was beside another killer before has to kill only one child itself.
        assert set(deaths) == killers
        assert max(deaths.values(), default=1) <= 2

    asyncio.run(play())


def _run(crew: PlayedCrew, runner: RunnerProcess, killers: set[int], deaths: Counter[int], choices: Random) -> None:
    """Let a child go through some of what it has; a killer is its end."""
    for given in list(runner.given.values())[: choices.randint(1, 10)]:
        index = crew._tries[given.task.lease].index
        if index in killers:
            deaths[index] += 1
            crew.gone(runner, "it died")
            return
        if choices.random() < 0.75:
            crew.complete(runner, given)
        # Otherwise it is done, and nobody has been told yet.
