"""How much should run side by side, given what waits and how long it takes; and how fast to follow that. Arithmetic only."""

import math
from collections import deque
from dataclasses import dataclass

GUESSED_SECONDS = 1.0
"""What an attempt is taken to last where none has been seen."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of a queue, or of a worker, at one moment.

    ready               tasks that could start now
    running             attempts that run now
    oldest_age_seconds  how long the first of `ready` has been ready
    completed_per_second, mean_seconds  how many ended lately, and how long one took; None if none was seen
    """

    ready: int = 0
    running: int = 0
    oldest_age_seconds: float = 0.0
    completed_per_second: float = 0.0
    mean_seconds: float | None = None


def slots_wanted(demand: Demand, drain_seconds: float) -> int:
    """How many attempts should run side by side, so that what waits has begun within about `drain_seconds`.

    What runs now is needed where it is. What waits needs more only if it would not be gone in time at the present rate; if
    the first of it has waited for that long already, at least half as much again, whatever was calculated.
    """
    if not demand.ready:
        return demand.running
    late = demand.oldest_age_seconds > drain_seconds
    in_time = demand.ready <= demand.completed_per_second * drain_seconds
    if demand.running and in_time and not late:
        return demand.running
    seconds = GUESSED_SECONDS if demand.mean_seconds is None else demand.mean_seconds
    more = max(1, math.ceil(demand.ready * seconds / drain_seconds))
    if late:
        more = max(more, math.ceil(demand.running / 2))
    return demand.running + min(demand.ready, more)


def workers_wanted(slots: int, slots_per_worker: int) -> int:
    """How many workers have room for so many attempts."""
    return math.ceil(slots / slots_per_worker)


class Follower:
    """Follows what is wanted, between `least` and `most`: up when it was wanted twice in a row, at most doubling; down to
    the most that was wanted within `steady_seconds`. So neither one look nor a short lull changes anything."""

    def __init__(self, least: int, most: int, steady_seconds: float) -> None:
        self._least = least
        self._most = most
        self._steady_seconds = steady_seconds
        self._since: float | None = None
        self._wanted: deque[tuple[float, int]] = deque()

    def next(self, now: float, present: int, wanted: int) -> int:
        """How many there should be from `now` (monotonic seconds) on, where `present` are there."""
        before = self._wanted[-1][1] if self._wanted else present
        self._since = now if self._since is None else self._since
        self._wanted.append((now, wanted))
        while now - self._wanted[0][0] > self._steady_seconds:
            self._wanted.popleft()
        lately = max(one for _, one in self._wanted)
        if min(before, wanted) > present:
            target = min(wanted, 2 * max(1, present))
        elif lately < present and now - self._since >= self._steady_seconds:
            target = lately
        else:
            target = present
        return min(self._most, max(self._least, target))
