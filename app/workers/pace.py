"""How fast the attempts of one worker are, as it has seen lately."""

from collections.abc import Callable, Sequence

from app.core import slots
from app.core.slots import Kind

NEWEST_SHARE = 0.2
"""How much the newest attempt counts in the mean of its type."""


class Pace:
    """Means by task type, and how many end in a second. `kind_of` tells the kind of a type."""

    def __init__(self, kind_of: Callable[[str], Kind]) -> None:
        self._kind_of = kind_of
        self._means: dict[str, float] = {}
        self._count = 0
        self._asked: tuple[float, int] | None = None

    def learn(self, task_type: str, seconds: float) -> None:
        """One more has ended."""
        self._count += 1
        mean = self._means.get(task_type, seconds)
        self._means[task_type] = (1 - NEWEST_SHARE) * mean + NEWEST_SHARE * seconds

    def per_second(self, now: float) -> float:
        """How many ended a second since this was last asked, at `now` (monotonic seconds); 0 the first time."""
        before, self._asked = self._asked, (now, self._count)
        return (self._count - before[1]) / (now - before[0]) if before and now > before[0] else 0.0

    def mean_seconds(self) -> float | None:
        """Over all types that were seen, each counting as one; None if there was none."""
        return sum(self._means.values()) / len(self._means) if self._means else None

    def ahead(self, task_types: Sequence[str]) -> int:
        """How many attempts of these may be put behind one that runs: none where one of them was never seen."""
        known = [self._means[task_type] for task_type in task_types if task_type in self._means]
        return slots.ahead(max(known)) if known and len(known) == len(task_types) else 0

    def most_ahead(self, kind: Kind) -> int:
        """As many as of the quickest of that kind."""
        return slots.ahead(min((mean for one, mean in self._means.items() if self._kind_of(one) == kind), default=None))
