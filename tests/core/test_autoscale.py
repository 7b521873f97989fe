"""How much is wanted, as tables; how that is followed, on traces."""

import math

import pytest

from app.core.autoscale import Demand, Follower, slots_wanted, workers_wanted

DRAIN = 30.0


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (Demand(), 0),
        (Demand(running=7), 7),
        # From nothing: one is there to begin with, whatever is known.
        (Demand(ready=1), 1),
        (Demand(ready=1, mean_seconds=0.001), 1),
        (Demand(ready=1, completed_per_second=100.0, mean_seconds=0.01), 1),
        (Demand(ready=300), 10),
        # 300 tasks of 2 s are 600 s of work: 20 side by side do it in 30 s.
        (Demand(ready=300, mean_seconds=2.0), 20),
        (Demand(ready=300, running=5, mean_seconds=2.0), 25),
        # Never more than there is to do.
        (Demand(ready=3, running=2, mean_seconds=600.0), 5),
        # It will be gone in time as it is.
        (Demand(ready=300, running=5, completed_per_second=10.0, mean_seconds=0.5), 5),
        (Demand(ready=301, running=5, completed_per_second=10.0, mean_seconds=0.5), 11),
        # It should have been gone by now, so what was calculated is wrong.
        (Demand(ready=300, running=8, oldest_age_seconds=31.0, completed_per_second=10.0, mean_seconds=0.1), 12),
        (Demand(ready=2, running=8, oldest_age_seconds=31.0, completed_per_second=10.0, mean_seconds=0.1), 10),
    ],
)
def test_what_is_wanted_follows_from_queue_age_rate_and_duration(demand: Demand, expected: int) -> None:
    assert slots_wanted(demand, DRAIN) == expected


def test_more_waiting_never_asks_for_less() -> None:
    for running in (0, 1, 5, 50):
        for mean in (None, 0.01, 1.0, 60.0):
            wanted = [slots_wanted(Demand(ready, running, mean_seconds=mean), DRAIN) for ready in range(0, 2000, 7)]
            assert wanted == sorted(wanted)


@pytest.mark.parametrize(("slots", "per_worker", "expected"), [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2), (9, 1, 9)])
def test_workers_are_rounded_up(slots: int, per_worker: int, expected: int) -> None:
    assert workers_wanted(slots, per_worker) == expected


def followed(wanted: list[int], *, least: int = 1, most: int = 16, steady: float = 10.0) -> list[int]:
    """How many there are after each second, where so many are wanted at each."""
    follower, present, trace = Follower(least, most, steady), least, []
    for second, one in enumerate(wanted):
        present = follower.next(float(second), present, one)
        trace.append(present)
    return trace


def test_one_look_changes_nothing_two_do() -> None:
    assert followed([1, 9, 1, 9, 1]) == [1] * 5
    assert followed([1, 2, 2]) == [1, 1, 2]


def test_it_grows_by_doubling_up_to_the_most() -> None:
    assert followed([40] * 6) == [1, 2, 4, 8, 16, 16]


def test_it_shrinks_only_to_the_most_that_was_wanted_for_a_while() -> None:
    trace = followed([8] * 6 + [3] * 6 + [2] * 20)
    assert max(trace) == 8
    assert trace[6:16] == [8] * 10  # ten seconds after eight were last wanted
    assert trace[16] == 3
    assert trace[-1] == 2


def test_a_short_lull_does_not_shrink_it() -> None:
    trace = followed(([8] * 5 + [1] * 5) * 6)
    assert set(trace[5:]) == {8}


def test_it_never_leaves_its_limits() -> None:
    trace = followed([0] * 30 + [1000] * 30 + [0] * 60, least=2, most=5)
    assert (min(trace), max(trace), trace[-1]) == (2, 5, 2)


def test_a_steady_load_comes_to_rest_with_just_what_it_needs() -> None:
    """Tasks of 1 s come at 6 a second: with n runners min(n, waiting) end each second."""
    follower, runners, waiting, trace = Follower(1, 16, 10.0), 1, 0.0, []
    for second in range(300):
        waiting += 6
        done = min(runners, waiting)
        waiting -= done
        demand = Demand(math.ceil(waiting), round(done), 0.0, done, 1.0)
        runners = follower.next(float(second), runners, slots_wanted(demand, 2.0))
        trace.append(runners)
    assert waiting <= 2 * runners
    assert 6 <= trace[-1] <= 12
    assert len(set(trace[-60:])) <= 2, trace[-60:]
