"""Tallies: what happened to tasks, counted by minute, queue and task type, with how long they waited and ran.

A histogram has fixed buckets, so that those of many processes and minutes can be added up. Arithmetic only.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

BOUNDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper ends of the buckets in seconds; a last bucket has all above."""
BUCKETS = len(BOUNDS) + 1

COUNTS = ("submitted", "completed", "failed", "retried", "cancelled")
ENDS = ("completed", "failed", "cancelled")

MINUTE, HOUR, ALWAYS = 60, 3600, 0
"""Seconds that a stored tally is about. ALWAYS is everything there ever was."""
SPANS = (MINUTE, HOUR, ALWAYS)

Pair = tuple[str, str]
"""(queue, task type)"""

OTHERS = "_others"
"""The queue under which tasks are counted whose own would be one too many: clients may invent names."""
MOST_PAIRS = 2000


def floor(moment: datetime, seconds: int) -> datetime:
    """The beginning of the span that `moment` lies in; for ALWAYS the epoch."""
    if seconds == ALWAYS:
        return datetime.fromtimestamp(0, UTC)
    whole = int(moment.timestamp())
    return datetime.fromtimestamp(whole - whole % seconds, UTC)


_bucket = partial(bisect_left, BOUNDS)


@dataclass(slots=True)
class Durations:
    """How often something took how long: how many fell into each bucket, and all seconds together."""

    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    total_seconds: float = 0.0

    def add(self, seconds: Iterable[float]) -> None:
        """Count these. As few steps of Python as may be for each: every task passes here twice."""
        given = list(seconds)
        for bucket, count in Counter(map(_bucket, given)).items():
            self.buckets[bucket] += count
        self.total_seconds += sum(given)

    def merge(self, other: "Durations") -> None:
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.total_seconds += other.total_seconds

    @property
    def count(self) -> int:
        return sum(self.buckets)

    @property
    def mean(self) -> float | None:
        return self.total_seconds / self.count if self.count else None

    def quantile(self, part: float) -> float | None:
        """About so long took at most this part of them: exact to the width of a bucket, within which they are taken to be
        spread evenly. What is above the last bound is said to be the last bound. None where there are none."""
        count = self.count
        if not count:
            return None
        wanted, below = part * count, 0
        for number, here in enumerate(self.buckets):
            if here and below + here >= wanted:
                if number == len(BOUNDS):
                    break
                lower = BOUNDS[number - 1] if number else 0.0
                return lower + (BOUNDS[number] - lower) * (wanted - below) / here
            below += here
        return BOUNDS[-1]


@dataclass(slots=True)
class Tally:
    """What happened in one span of time. `retried`: attempts after which another one was to come. `wait`: from being ready
    to the start of an attempt; `run`: of attempts, however they ended."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    wait: Durations = field(default_factory=Durations)
    run: Durations = field(default_factory=Durations)

    def merge(self, other: "Tally") -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wait.merge(other.wait)
        self.run.merge(other.run)

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.cancelled


def total(tallies: Sequence[Tally]) -> Tally:
    """All of them together."""
    summed = Tally()
    for one in tallies:
        summed.merge(one)
    return summed
