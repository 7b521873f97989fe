"""`ServerClock`: the time of the database server, told without asking it.

Workers on many hosts must agree on when a lease is over. A host's own wall clock may be ten minutes off; the server's is the
same for all. So each process asks for it now and then, and counts on from there with a clock that nobody sets.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

REFRESH_SECONDS = 5.0
"""How often the server should be asked. A step of its clock is known to everyone after that, and whoever sweeps holds still
for one lease after a step (`JumpDetector`), so workers have renewed by the new time before anyone takes back."""


def steady_seconds() -> float:
    """Seconds on a clock that nobody sets; while the host sleeps it goes on, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ServerClock:
    """Gives the server's time once it has been told it; until then this host's."""

    def __init__(self, steady: Callable[[], float] = steady_seconds) -> None:
        self.steady = steady
        self._zero: datetime | None = None
        """The server's time when the steady clock showed 0."""

    def __call__(self) -> datetime:
        if self._zero is None:
            return datetime.now(UTC)
        return self._zero + timedelta(seconds=self.steady())

    def learn(self, asked: float, told: datetime, answered: float) -> None:
        """The server said `told` at some moment between `asked` and `answered` on the steady clock.

        What is known is a span as wide as the round trip. A belief within it stays, so that the clock does not jitter with
        the network; one outside is replaced by the middle.
        """
        earliest, latest = told - timedelta(seconds=answered), told - timedelta(seconds=asked)
        if self._zero is None or not earliest <= self._zero <= latest:
            self._zero = earliest + (latest - earliest) / 2
