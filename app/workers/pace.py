"""How fast the attempts of one worker are, and how large their payloads, as it has seen lately."""

from collections.abc import Callable, Sequence

from app.core import slots
from app.core.slots import Kind
from app.core.task import ClaimedTask

NEWEST_SHARE = 0.2
"""How much the newest attempt counts in the means of its type."""
FORGOTTEN_SHARE = 0.02
"""How much of what a payload is smaller than the largest is forgotten of that with it."""


class Pace:
    """Means by task type, how large payloads are at most of late, and how many end in a second. `kind_of` tells the kind of
    a type."""

    def __init__(self, kind_of: Callable[[str], Kind]) -> None:
        self._kind_of = kind_of
        self._seconds: dict[str, float] = {}
        self._characters: dict[str, float] = {}
        self._count = 0
        self._asked: tuple[float, int] | None = None

    def see(self, task: ClaimedTask) -> None:
        """One more was claimed. Sizes are learned here, and from the largest: those that are held ahead would be too many
        long before the first of them has ended."""
        size, largest = len(task.payload), self._characters.get(task.task_type, 0.0)
        self._characters[task.task_type] = max(size, largest - FORGOTTEN_SHARE * (largest - size))

    def learn(self, task: ClaimedTask, seconds: float) -> None:
        """One more has ended."""
        self._count += 1
        before = self._seconds.get(task.task_type, seconds)
        self._seconds[task.task_type] = (1 - NEWEST_SHARE) * before + NEWEST_SHARE * seconds

    def expected_seconds(self, task_type: str) -> float:
        """How long one of them takes; 0 where none was seen."""
        return self._seconds.get(task_type, 0.0)

    def per_second(self, now: float) -> float:
        """How many ended a second since this was last asked, at `now` (monotonic seconds); 0 the first time."""
        before, self._asked = self._asked, (now, self._count)
        return (self._count - before[1]) / (now - before[0]) if before and now > before[0] else 0.0

    def mean_seconds(self) -> float | None:
        """Over all types that were seen, each counting as one; None if there was none."""
        return sum(self._seconds.values()) / len(self._seconds) if self._seconds else None

    def ahead(self, task_types: Sequence[str]) -> int:
        """How many attempts of these may be put behind one that runs: none where one of them was never seen."""
        if not task_types or any(task_type not in self._seconds for task_type in task_types):
            return 0
        slowest = max(self._seconds[task_type] for task_type in task_types)
        return slots.ahead(slowest, max(self._characters.get(task_type, 0.0) for task_type in task_types))

    def most_ahead(self, kind: Kind) -> int:
        """As many as of that type of the kind of which most may be. Asked for several times an exchange."""
        known = ((one, seconds) for one, seconds in self._seconds.items() if self._kind_of(one) == kind)
        return max((slots.ahead(seconds, self._characters.get(one, 0.0)) for one, seconds in known), default=0)
