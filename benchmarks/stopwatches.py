"""A worker with stopwatches in its parent process, for anatomy.py. It writes what they show to the file BENCH_ANATOMY when it
ends: seconds of processor time by part, from the first BENCH_FROM tasks on.
"""

import atexit
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy.pool import PoolProxiedConnection

from app.models import sqlite
from app.services.queue import TaskQueue
from app.workers.main import main
from app.workers.pool import RunnerPool

FROM = int(os.environ["BENCH_FROM"])


class Watches:
    """Thread time by part, the process's, the wall clock, and how many tasks have ended; at FROM tasks, and now."""

    def __init__(self) -> None:
        self.parts: Counter[str] = Counter()
        self._tasks = 0
        self._begin: tuple[Counter[str], int] | None = None

    def note(self, ended: int) -> None:
        """So many more have ended, and been told of."""
        self._tasks += ended
        if self._begin is None and self._tasks >= FROM:
            self._begin = self._now()
        self._end = self._now()

    def _now(self) -> tuple[Counter[str], int]:
        return Counter(self.parts, process=time.process_time(), wall=time.perf_counter()), self._tasks

    def write(self) -> None:
        assert self._begin is not None
        (begin, first), (end, last) = self._begin, self._end
        seconds = {name: end[name] - begin[name] for name in end}
        Path(os.environ["BENCH_ANATOMY"]).write_text(json.dumps({"tasks": last - first, "seconds": seconds}))


watches = Watches()


def watched(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its thread time counted as `part`."""

    def run(*arguments: Any, **options: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            watches.parts[part] += time.thread_time() - began

    return run


async def in_one_trip(connection: PoolProxiedConnection, work: Coroutine[Any, Any, Any]) -> Any:
    """As the original, with a stopwatch around what it drives in the database's thread."""
    timed: Any = SimpleNamespace(send=watched("trips", work.send), close=work.close)
    return await make_trip(connection, timed)


def told(self: TaskQueue, worker_id: str, ended: Any, *rest: Any) -> None:
    tell(self, worker_id, ended, *rest)
    watches.note(len(ended))


if __name__ == "__main__":
    tell = watched("telling", TaskQueue._tell)
    TaskQueue._tell = told  # type: ignore[method-assign]
    make_trip, sqlite.in_one_trip = sqlite.in_one_trip, in_one_trip
    sqlite._OneTrip._run = watched("statements", sqlite._OneTrip._run)  # type: ignore[method-assign]
    sqlite.GuardedConnection.commit = watched("commit", sqlite.GuardedConnection.commit)
    RunnerPool.place = watched("placing", RunnerPool.place)  # type: ignore[method-assign]
    RunnerPool.heard = watched("hearing", RunnerPool.heard)  # type: ignore[method-assign]
    atexit.register(watches.write)
    main()
