"""The wall clock as one process sees it, beside the time that nobody can set."""

from collections.abc import Callable

from app.core.clock import Clock, JumpDetector
from app.core.events import ClockJumped, EventBus

STEADY_SECONDS = 3600.0
"""How long nothing is deleted for its age after the wall clock was set: until somebody has noticed, if it was a mistake."""


class WallClock:
    """Notices when the wall clock is set, and says so once."""

    def __init__(self, bus: EventBus, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._clock = clock
        self.monotonic = monotonic
        self._jumps = JumpDetector()
        self._set_backs = 1  # before we were there, for all we know

    def set_backs(self) -> int:
        """How often it was set back so far. Looks at it."""
        self._look()
        return self._set_backs

    def is_steady(self) -> bool:
        """Whether what is old by it may be deleted: a clock that was just set may be set again. Looks at it."""
        self._look()
        return self._jumps.settled(self.monotonic(), STEADY_SECONDS)

    def _look(self) -> None:
        jump = self._jumps.observe(self._clock().timestamp(), self.monotonic())
        if jump:
            self._bus.publish(ClockJumped(jump))
        self._set_backs += jump < 0
