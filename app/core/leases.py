"""When a lease is over, as one process sees it. Arithmetic only."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class HeldLease:
    """The lease on a running task as it was read: task id, its counter, and the end that its worker wrote."""

    id: int
    lease: int
    expires_at: datetime


class LeaseWatch:
    """Tells which leases are over, although wall clocks may be set: by people, by time servers, by hosts that wake.

    Looked at are only the leases that stand out by the wall clock: their end has passed, or it is further away than any
    end can be. One whose end has passed just now, as far as a clock tells that nobody has set of late, is over. Every other
    one is over when nobody has renewed it for as long as it lasts, by the monotonic time of who watches. So a worker whose
    clock is a day behind keeps its tasks, and those of one whose clock was a day ahead do not wait a day when it dies. (A
    clock that differs from ours by less than a lease is not seen through: whoever shares a store shares its clock.)
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lasts = lease_seconds
        self.tolerance_seconds = min(2.0, lease_seconds / 10)
        self._seen: dict[HeldLease, float] = {}
        self._looked_at: float | None = None
        self._offset = 0.0
        self._trusted_from = 0.0

    def stands_out(self, wall: datetime) -> tuple[datetime, datetime]:
        """Which leases to look at: those that end before the first moment, or after the second."""
        return wall, wall + timedelta(seconds=self._lasts + self.tolerance_seconds)

    def over(self, standing_out: Iterable[HeldLease], wall: datetime, monotonic: float) -> list[HeldLease]:
        """Of the leases that stand out, those that are over, the longest over first. `wall` and `monotonic` (seconds) are
        this process's clocks, both from just before the leases were read."""
        since_last_look = self._look(wall.timestamp() - monotonic, monotonic)
        self._seen = {one: self._seen.get(one, monotonic) for one in standing_out}
        just_now = wall - timedelta(seconds=since_last_look + self.tolerance_seconds)
        is_trusted = monotonic >= self._trusted_from
        found = [
            one
            for one, seen_at in self._seen.items()
            if (is_trusted and just_now <= one.expires_at < wall) or monotonic - seen_at > self._lasts
        ]
        return sorted(found, key=lambda one: (self._seen[one], one.expires_at))

    def _look(self, offset: float, monotonic: float) -> float:
        """Seconds since the last look. A clock that was set meanwhile, or that we do not know yet, is trusted again after
        a lease: then everything that was written by the old time has been renewed or is over."""
        first = self._looked_at is None
        since = 0.0 if self._looked_at is None else monotonic - self._looked_at
        if first or abs(offset - self._offset) > self.tolerance_seconds:
            self._trusted_from = monotonic + self._lasts
        self._looked_at, self._offset = monotonic, offset
        return since
