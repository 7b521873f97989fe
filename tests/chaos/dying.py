"""Starts on a database, as every process does, and dies of it: for each line DATABASE, before or after, CALL (tabs between)
on its standard input it forks a process that is killed there, and writes how that ended.

    python -m tests.chaos.dying

One process that forks, because importing all that is needed takes ten times as long as the start itself.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.script  # noqa: F401 loaded once, before the forks

from app.models.database import Database
from app.models.sqlite import GuardedConnection, PatientCursor

CALLS = ((PatientCursor, "execute"), (PatientCursor, "executemany"), (GuardedConnection, "commit"))


async def start(database: Path) -> None:
    """What every process does first."""
    opened = Database(f"sqlite:///{database}")
    try:
        await opened.open()
    finally:
        await opened.close()


@contextmanager
def interrupted(act: Callable[[], None], at: int, *, after: bool) -> Iterator[list[str]]:
    """Do `act` before, or after, call number `at` into the library (from 1; 0 is none). Gives the calls."""
    made: list[str] = []
    originals = [getattr(owner, name) for owner, name in CALLS]

    def replaced(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any) -> Any:
            made.append(str(arguments[0]) if arguments else name)
            here = len(made) == at
            if here and not after:
                act()
            answer = original(target, *arguments)
            if here and after:
                act()
            return answer

        return call

    try:
        for (owner, name), original in zip(CALLS, originals, strict=True):
            setattr(owner, name, replaced(original, name))
        yield made
    finally:
        for (owner, name), original in zip(CALLS, originals, strict=True):
            setattr(owner, name, original)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    for line in sys.stdin:
        database, when, at = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            with interrupted(die, int(at), after=when == "after"):
                asyncio.run(start(Path(database)))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
