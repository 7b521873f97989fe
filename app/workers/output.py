"""Lines that user code prints find their way to the attempt that printed them: a mark before each line says whose it is.

The lines go through the ordinary pipe, at once, so that those before a crash are not lost, and nothing waits in the runner.
What native code writes has no mark.
"""

import contextlib
import io
import re
import sys
from contextvars import ContextVar

_MARK = re.compile("\x1e(\\d+) (\\d+)\x1f")
_NO_MARKS = str.maketrans("\x1e\x1f", "\u241e\u241f")
"""What code prints must not look like a mark: it would speak for another."""

speaker: ContextVar[tuple[int, int] | None] = ContextVar("speaker", default=None)
"""(task id, lease) of the attempt whose code is running. Threads that user code starts have none of their own."""


class MarkedLines(io.TextIOWrapper):
    """A text stream over the pipe to the worker that passes on whole lines, each with the mark of its speaker.

    `alone` is whose lines are those that have no speaker: the attempt that has the runner to itself.
    """

    alone: tuple[int, int] | None = None

    def __init__(self, descriptor: int) -> None:
        pipe = open(descriptor, "wb", closefd=False)  # noqa: SIM115 lives as long as the process
        super().__init__(pipe, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._rest: dict[tuple[int, int] | None, str] = {}

    def write(self, text: str) -> int:
        key = speaker.get() or self.alone
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        length = len(text)
        text = text.translate(_NO_MARKS)
        lines, end, rest = (self._rest.pop(key, "") + text).rpartition("\n")
        if len(rest) > _LONGEST_REST:
            lines, end, rest = lines + end + rest, "\n", ""
        if rest:
            self._rest[key] = rest
        if end:
            super().write("".join(f"{_mark(key)}{line}\n" for line in lines.split("\n")))
        return length

    def close(self) -> None:
        """Stay open: the next attempt wants to print too."""

    def finish(self, key: tuple[int, int]) -> None:
        """Pass on the line that an attempt which is over has left without an end."""
        if rest := self._rest.pop(key, ""):
            with contextlib.suppress(OSError, ValueError):  # user code may have closed what is below
                super().write(f"{_mark(key)}{rest}\n")


_LONGEST_REST = 8192


def _mark(key: tuple[int, int] | None) -> str:
    return "" if key is None else f"\x1e{key[0]} {key[1]}\x1f"


def mark_output() -> tuple[MarkedLines, MarkedLines]:
    """From now on what Python code prints in this process is marked."""
    streams = MarkedLines(1), MarkedLines(2)
    sys.stdout, sys.stderr = streams
    return streams


def unmarked(line: str) -> list[tuple[tuple[int, int] | None, str]]:
    """The parts of a line as it came through the pipe, each with its speaker: native code that wrote no end of line has
    its words before the mark of the next line."""
    before, *marked = _MARK.split(line)
    parts: list[tuple[tuple[int, int] | None, str]] = [(None, before)] if before or not marked else []
    for id_, lease, text in zip(marked[::3], marked[1::3], marked[2::3], strict=True):
        parts.append(((int(id_), int(lease)), text))
    return parts
