"""The lines that an attempt prints and logs: numbered from 1, the newest kept up to a number and a size. No I/O."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from app.core.task import JsonText
from app.core.values import value

KEPT_ATTEMPTS = 10
"""Of so many attempts of one task lines are kept, the last ones."""
CHUNK_LINES = 50
"""Lines that are stored together, and dropped together."""
LEAST_LOG_BYTES = 16 * 2**10
"""A line may be almost as long, with all its fields."""


class Source(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"
    """What is printed there, and what `logging` writes there."""
    LOG = "log"
    """`context.log`."""


@value
class Chunk:
    """Some lines of one attempt: `lines` is a JSON array of the `count` ones up to `number`. Those before `keep_from` are
    to be dropped."""

    task_id: int
    lease: int
    number: int
    count: int
    attempt: int
    lines: JsonText
    keep_from: int = 1


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much is kept of one attempt; without lines nothing is."""

    lines: int
    bytes: int


class AttemptLog:
    """The lines of one attempt on their way to the store. Adding one costs next to nothing, however many come."""

    def __init__(
        self, task_id: int, lease: int, attempt: int, limits: LogLimits, clean: Callable[[str], str] = str
    ) -> None:
        """`clean` cuts out of a text what must not be stored; it is asked about those lines alone that are taken."""
        self._of = (task_id, lease, attempt)
        self._limits = limits
        self._clean = clean
        self._number = 0
        self._new: deque[tuple[datetime, Source, str, Mapping[str, Any] | None]] = deque(maxlen=limits.lines)
        self._stored: deque[tuple[int, int, int]] = deque()
        """Number of the first line, number of lines and size of each chunk that was taken and is kept."""

    def add(self, at: datetime, source: Source, text: str, fields: Mapping[str, Any] | None) -> None:
        """One more line. Where too many wait to be taken the oldest of them goes."""
        self._number += 1
        self._new.append((at, source, text, fields))

    def take(self) -> list[Chunk]:
        """What was added since the last time, in chunks; each says what is to be dropped for it."""
        chunks = list(self._chunks())
        self._new.clear()
        return chunks

    def _chunks(self) -> Iterator[Chunk]:
        task_id, lease, attempt = self._of
        number = self._number - len(self._new)
        for lines in _grouped(self._rendered(number + 1), self._limits.bytes // 4):
            number += len(lines)
            text = f"[{','.join(lines)}]"
            self._stored.append((number - len(lines) + 1, len(lines), len(text.encode())))
            self._drop_oldest()
            yield Chunk(task_id, lease, number, len(lines), attempt, JsonText(text), self._stored[0][0])

    def _drop_oldest(self) -> None:
        lines = sum(count for _, count, _ in self._stored)
        size = sum(size for _, _, size in self._stored)
        while len(self._stored) > 1 and (lines > self._limits.lines or size > self._limits.bytes):
            _, count, bytes_ = self._stored.popleft()
            lines, size = lines - count, size - bytes_

    def _rendered(self, first: int) -> Iterator[str]:
        for number, (at, source, text, fields) in enumerate(self._new, first):
            line: dict[str, Any] = {"number": number, "at": at, "source": source, "text": self._clean(text)}
            if fields:
                line["fields"] = fields
            yield orjson.dumps(line, option=orjson.OPT_UTC_Z).decode()


def _grouped(lines: Iterator[str], most_bytes: int) -> Iterator[list[str]]:
    """The lines in groups of at most CHUNK_LINES, and of so many bytes unless one alone is longer."""
    group: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode())
        if group and (len(group) == CHUNK_LINES or size + length > most_bytes):
            yield group
            group, size = [], 0
        group.append(line)
        size += length
    if group:
        yield group
