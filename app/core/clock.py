"""Time: where it comes from, how it is stored, and how to notice that the wall clock was moved."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Gives the present moment, aware UTC. Statements take their `now` from `Database.clock()`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def system_clock() -> datetime:
    """This host's wall clock."""
    return datetime.now(UTC)


def to_milliseconds(moment: datetime) -> int:
    """Whole milliseconds since the epoch, as stored. `moment` must be aware."""
    return (moment - _EPOCH) // _MILLISECOND


def from_milliseconds(milliseconds: int) -> datetime:
    """The aware UTC moment that `to_milliseconds` stored."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


JUMP = timedelta(seconds=2)
"""Clocks that are closer together than this are taken for the same."""


class JumpDetector:
    """Compares wall and monotonic time, both in seconds, and remembers when they last came apart: when a person, a time
    server or a host that woke has set the clock."""

    def __init__(self, tolerance_seconds: float = JUMP.total_seconds()) -> None:
        self._tolerance = tolerance_seconds
        self._offset: float | None = None
        self._jumped_at: float | None = None

    def observe(self, wall: float, monotonic: float) -> float:
        """By how many seconds the wall clock was moved since the last call; 0 within the tolerance."""
        offset = wall - monotonic
        jump = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        if abs(jump) <= self._tolerance:
            return 0.0
        self._jumped_at = monotonic
        return jump

    def settled(self, monotonic: float, quiet_seconds: float) -> bool:
        """True if the last jump is at least `quiet_seconds` ago."""
        return self._jumped_at is None or monotonic - self._jumped_at >= quiet_seconds
