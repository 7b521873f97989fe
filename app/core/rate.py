"""How often something may be done, on average and at once: a bucket that fills by time, with one token for each time.

A bucket is one number, the moment at which it is full (again). Pure: the time is an argument.
"""

from dataclasses import dataclass

BURST_SECONDS = 2.0
"""A bucket holds what comes in this long: so much may be done at once after a pause."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a bucket said. `limit` is how much it holds, `remaining` how much is left, `reset_seconds` how long until it is
    full, `wait_seconds` how long until there is one more; 0 if there is one."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, on average; `capacity` is how many at once."""

    per_second: float

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_second * BURST_SECONDS)

    def take(self, full_at: float, now: float) -> tuple[float, Standing]:
        """Take one token, if there is one, out of a bucket that is full at `full_at` (seconds; in the past for one that is
        full). Returns when it is full after that, and what it said. A moment that is too far ahead is that of an empty
        bucket."""
        missing = min(self.capacity, max(0.0, full_at - now) * self.per_second)
        # A token that has come but for the last bit of a fraction has come.
        allowed = self.capacity - missing >= 1 - 1e-9
        if allowed:
            missing += 1
        left = max(0.0, self.capacity - missing)
        standing = Standing(
            allowed=allowed,
            limit=int(self.capacity),
            remaining=int(left + 1e-9),
            reset_seconds=missing / self.per_second,
            wait_seconds=max(0.0, (1 - left) / self.per_second),
        )
        return now + missing / self.per_second, standing
