"""What the attempts of a worker print and log, gathered until it is stored with their progress."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.core.attempt_log import AttemptLog, Chunk, LogLimits, Source
from app.core.clock import Clock
from app.workers.process import Given
from app.workers.results import storable

LONGEST_LINE = 2000


class AttemptLogs:
    """Lines on their way from runners to the store. `stir` is called when there is something to store."""

    def __init__(self, limits: LogLimits, clock: Clock, redact: Callable[[str], str], stir: Callable[[], None]) -> None:
        self._limits = limits
        self._clock = clock
        self._redact = redact
        self._stir = stir
        self._unwritten: dict[tuple[int, int], AttemptLog] = {}
        self._refused: list[Chunk] = []

    @property
    def waiting(self) -> bool:
        """Whether there is anything to store."""
        return bool(self._unwritten or self._refused)

    def add(self, given: Given, source: Source, text: str, fields: Mapping[str, Any] | None = None) -> None:
        """One line of this attempt, which may be over."""
        if not self._limits.lines:
            return
        if given.log is None:
            task = given.task
            given.log = AttemptLog(task.id, task.lease, task.attempt, self._limits, self._clean)
        given.log.add(self._clock(), source, text, fields)
        if not self.waiting:
            self._stir()
        self._unwritten[given.key] = given.log

    def _clean(self, text: str) -> str:
        return storable(self._redact(text), LONGEST_LINE)

    def take(self) -> list[Chunk]:
        """All that is to be stored now. What the store then refuses is to be given back."""
        refused, self._refused = self._refused, []
        logs, self._unwritten = self._unwritten, {}
        chunks = refused + [chunk for log in logs.values() for chunk in log.take()]
        keep_from = {(one.task_id, one.lease): one.keep_from for one in chunks}
        return [one for one in chunks if one.number >= keep_from[one.task_id, one.lease]]

    def give_back(self, chunks: Sequence[Chunk]) -> None:
        """The store was away: they are to be stored later."""
        self._refused = [*chunks, *self._refused]
