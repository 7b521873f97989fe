"""Counts of work that are the same on every machine and at every hour: instructions of the Python interpreter, statements
that SQLite was given, and steps that its engine took for them. What libraries in C or Rust do is not in them.
"""

import collections
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import CodeType, FrameType
from typing import Any

from app.models import sqlite

TOOL = 4
"""One of the numbers that `sys.monitoring` keeps free for anyone."""


@dataclass(frozen=True)
class Cost:
    """What one operation took. `statements` has BEGIN and COMMIT in it."""

    instructions: int
    statements: int
    steps: int


class Counter:
    """Counts in every thread of the process while `counting`; `cost` is of the last time."""

    def __init__(self) -> None:
        self.cost = Cost(0, 0, 0)
        self._executed: collections.Counter[CodeType] = collections.Counter()
        self._statements: list[str] = []
        self._steps: list[None] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens in the block."""
        self._executed.clear()
        self._statements.clear()
        self._steps.clear()
        with self._instructions():
            yield
        self.cost = Cost(self._executed.total(), len(self._statements), len(self._steps))

    def where(self) -> list[tuple[str, int]]:
        """Instructions of the last time by function, the most first."""
        return [(f"{code.co_filename} {code.co_qualname}", count) for code, count in self._executed.most_common()]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch every connection to SQLite and every thread that is made in the block, whoever makes it."""
        connect: Callable[..., Any] = sqlite.sqlite.connect

        def watched_connect(*arguments: Any, **options: Any) -> Any:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self._statements.append)
            # Called at every step, so nothing in Python: that would count among the instructions.
            connection.set_progress_handler(partial(self._steps.append, None), 1)
            return connection

        # The service's own use of the handler would put ours out of place.
        watch_the_clock = sqlite.GuardedConnection.watch_the_clock
        sqlite.GuardedConnection.watch_the_clock = lambda *_: None  # type: ignore[method-assign]
        sqlite.sqlite.connect = watched_connect
        if sys.version_info < (3, 12):
            threading.settrace(self._enter)  # threads that live already cannot be watched
        try:
            yield
        finally:
            sqlite.sqlite.connect = connect
            sqlite.GuardedConnection.watch_the_clock = watch_the_clock  # type: ignore[method-assign]
            if sys.version_info < (3, 12):
                threading.settrace(None)  # type: ignore[arg-type]  # how it is switched off

    if sys.version_info >= (3, 12):

        @contextmanager
        def _instructions(self) -> Iterator[None]:
            monitoring = sys.monitoring
            monitoring.use_tool_id(TOOL, __name__)
            monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, self._one_more)
            monitoring.set_events(TOOL, monitoring.events.INSTRUCTION)
            try:
                yield
            finally:
                monitoring.set_events(TOOL, 0)
                monitoring.free_tool_id(TOOL)

        def _one_more(self, code: CodeType, offset: int) -> None:
            self._executed[code] += 1

    else:

        _on = False

        @contextmanager
        def _instructions(self) -> Iterator[None]:
            self._on = True
            sys.settrace(self._enter)
            try:
                yield
            finally:
                sys.settrace(None)
                self._on = False

        def _enter(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            frame.f_trace_opcodes = True
            return self._within

        def _within(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
            if event == "opcode" and self._on:
                self._executed[frame.f_code] += 1
            return self._within
