"""What came of the items of a batch: one line of JSON each, on disk in the order they ended, found again by index.

Memory holds twelve bytes an item and the first few errors, whatever the results are.
"""

import io
import json
import os
import re
import tempfile
from array import array
from bisect import insort
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, TimedOut

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_ERRORS = 10
_HEAD = re.compile(rb'\{"index":(\d+),"status":"(completed|failed)"')


def error_of(outcome: Outcome) -> dict[str, str]:
    """Why an item failed, as its result says it: {"type": "ValueError", "message": "..."}."""
    match outcome:
        case Errored():
            return {"type": outcome.type, "message": outcome.message}
        case TimedOut():
            return {"type": "TimedOut", "message": f"ran longer than {outcome.limit_seconds:g} seconds"}
        case Lost():
            return {"type": "Lost", "message": outcome.evidence}
        case Cancelled():
            return {"type": "Cancel", "message": outcome.message}
        case _:
            return {"type": "Snooze", "message": "an item of a batch cannot wait; it runs now or fails"}


class Results:
    """The outcomes of `total` items. Each item has one, the first that was added; they come out in order of the items."""

    def __init__(self, total: int, folder: Path | None = None) -> None:
        # Without a name, so that nothing is left behind; beside the files where there are any, for /tmp may be memory.
        where = folder if folder is not None and folder.is_dir() else None
        self._spool = tempfile.TemporaryFile(dir=where)  # noqa: SIM115 closed with this object
        self._starts = array("q", [-1]) * total
        self._lengths = array("I", [0]) * total
        self.total = total
        self.completed = 0
        self.failed = 0
        self.size = 0
        self.first_errors: list[tuple[int, dict[str, str]]] = []

    @property
    def ended(self) -> int:
        return self.completed + self.failed

    def has(self, index: int) -> bool:
        """True if the item has ended."""
        return self._starts[index] >= 0

    def add(self, index: int, outcome: Outcome) -> None:
        """Note how an item ended."""
        if isinstance(outcome, Completed):
            self._add(index, b'{"index":%d,"status":"completed","result":%b}\n' % (index, outcome.result.encode()))
        else:
            error = error_of(outcome)
            self._add(index, b'{"index":%d,"status":"failed","error":%b}\n' % (index, orjson.dumps(error)), error)

    def restore(self, lines: Iterable[bytes]) -> None:
        """Take in lines that `since` gave, in an earlier attempt."""
        for line in lines:
            if head := _HEAD.match(line):
                failed = head[2] == b"failed"
                self._add(int(head[1]), line, orjson.loads(line)["error"] if failed else None)

    def since(self, start: int) -> IO[bytes]:
        """The lines from that size on up to now, in the order the items ended."""
        self._spool.flush()
        return _stream(self._spool, iter([(start, self.size - start)]))

    def in_order(self) -> IO[bytes]:
        """The lines in order of the items; those that have not ended are missing."""
        self._spool.flush()
        places = zip(self._starts, self._lengths, strict=True)
        return _stream(self._spool, (place for place in places if place[0] >= 0))

    def items(self) -> list[dict[str, Any]]:
        """Every outcome in order of the items, all in memory."""
        with self.in_order() as lines:
            return [json.loads(line) for line in lines]  # not orjson: it makes floats of integers beyond 64 bits

    def close(self) -> None:
        """Let go of the disk."""
        self._spool.close()

    def _add(self, index: int, line: bytes, error: dict[str, str] | None = None) -> None:
        if self.has(index):
            return
        self._spool.write(line)
        self._starts[index], self._lengths[index] = self.size, len(line)
        self.size += len(line)
        if error is None:
            self.completed += 1
            return
        self.failed += 1
        insort(self.first_errors, (index, error), key=lambda one: one[0])
        del self.first_errors[MOST_ERRORS:]


def _stream(spool: IO[bytes], places: Iterator[tuple[int, int]]) -> IO[bytes]:
    return io.BufferedReader(_Places(spool.fileno(), places), 1 << 18)


class _Places(io.RawIOBase):
    """Parts of a file, one after the other. Reads without moving the file's position: others write meanwhile."""

    def __init__(self, descriptor: int, places: Iterator[tuple[int, int]]) -> None:
        self._descriptor = descriptor
        self._places = places
        self._at, self._left = 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._left:
            place = next(self._places, None)
            if place is None:
                return 0
            self._at, self._left = place
        with memoryview(buffer) as view:
            read = os.pread(self._descriptor, min(len(view), self._left), self._at)
            view[: len(read)] = read
        self._at += len(read)
        self._left -= len(read)
        return len(read)
