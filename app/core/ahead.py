"""What lies ahead of the wall clock because the clock was set back, and where it belongs. Arithmetic only.

A wait between two attempts is a length of time, and a place in the order of work comes from a moment that has passed:
both are stored as moments, so a clock that is set back by a day would make the one a day longer and the other a day
worse. Moments that a client asked for, `scheduled_at` and `expires_at`, are left as they are: they follow the clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.task import Status, rank_of


@dataclass(frozen=True, slots=True)
class Wait:
    """A task that waits, and `delay_seconds`, the wait that its last attempt ended with, if it is that which it waits for."""

    id: int
    status: Status
    priority: int
    rank: int
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Moved:
    """A task's new place, and its new moment where it waits for one; `from_rank` is the place it had."""

    id: int
    from_rank: int
    rank: int
    scheduled_at: datetime | None


def brought_back(wait: Wait, now: datetime, priority_step_seconds: float) -> Moved:
    """The place of a task that became ready, or whose wait began, at a moment that has not come yet: as if it were now."""
    ready_at = now + timedelta(seconds=wait.delay_seconds)
    rank = rank_of(ready_at, wait.priority, priority_step_seconds)
    return Moved(wait.id, wait.rank, rank, None if wait.status is Status.PENDING else ready_at)
