"""The parent of a runner: `python -m app.workers.guard MODULE DESCRIPTOR WORKER_PID MEMORY_BYTES`. It runs no code of users.

It forks the runner and is the nearest reaper of everything the runner starts, so that nothing gets out of its sight by
losing its parent or by opening a session of its own (Linux). When the runner ends, when the worker asks with END, and when
the worker dies, it kills all of them and ends as the runner did. It must be a process of its own: a runner that crashed
can clean up nothing, and a worker that was killed cannot either.

Elsewhere than on Linux only the runner's own session is killed, within a second of the worker's death.
"""

import contextlib
import ctypes
import importlib
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

END = signal.SIGUSR1
"""Asks a guard to kill its runner and all that came of it. The kernel sends it when the worker dies."""
OUT_OF_MEMORY_STATUS = 85
"""How a runner ends that has no memory left to say how its attempts ended."""

OOM_SCORE = 500
"""How much rather than others a runner, and what it starts, is killed where the kernel has no memory left: many runners of
a middling size must not cost their worker its life, only because it is larger than each of them."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ON_LINUX = sys.platform == "linux"
_LONGEST_END_SECONDS = 2.0
_LOOK_SECONDS = 0.5


class Guard:
    """Watches one runner from its fork to its end."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._ear, self._bell = os.pipe()
        self._told_to_end = False
        self._runner = 0
        self._status: int | None = None
        os.set_blocking(self._ear, False)
        os.set_blocking(self._bell, False)
        signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        signal.signal(END, self._end)
        # Terminals and service managers signal whole groups; only the worker decides when we end.
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        if _ON_LINUX:
            _prctl(_PR_SET_PDEATHSIG, END)
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if os.getppid() != worker:  # it died before we could ask
            os._exit(1)

    def fork(self) -> bool:
        """True in the runner, False in the guard."""
        guard = os.getpid()
        self._runner = os.fork()
        if self._runner:
            return False
        signal.set_wakeup_fd(-1)
        os.close(self._ear)
        os.close(self._bell)
        for number in (END, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()  # so that user code that signals its own group does not reach the guard
        if _ON_LINUX:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
        if os.getppid() != guard:
            os._exit(1)
        return True

    def watch(self) -> NoReturn:
        """Wait for an end, kill what is left, and end in the same way as the runner."""
        while not (self._reap() or self._told_to_end or os.getppid() != self._worker):
            self._wait(None if _ON_LINUX else _LOOK_SECONDS)
        deadline = time.monotonic() + _LONGEST_END_SECONDS
        while self._kill_all() and time.monotonic() < deadline:
            self._wait(0.01)
            self._reap()
        _end_like(self._status)

    def _end(self, *_: object) -> None:
        self._told_to_end = True

    def _wait(self, seconds: float | None) -> None:
        select.select([self._ear], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._ear, 4096)

    def _reap(self) -> bool:
        """Bury every child that is dead. True once the runner was among them."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self._runner:
                    self._status = status
                if pid == 0:
                    break
        return self._status is not None

    def _kill_all(self) -> bool:
        """Kill everything below us, parents first, so that nobody reaps what we are about to kill. False when there is
        nothing left."""
        below = descendants(os.getpid())
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not _ON_LINUX:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._runner, signal.SIGKILL)
        return bool(below) or self._status is None


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents before children. Empty where there is no /proc."""
    children = _children_by_parent()
    found, waiting = [], [pid]
    while waiting:
        below = children(waiting.pop(0))
        found += below
        waiting += below
    return found


def _children_by_parent() -> Callable[[int], list[int]]:
    if Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return _listed_children
    table: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):  # a kernel without CONFIG_PROC_CHILDREN
        with contextlib.suppress(OSError):
            table.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    return lambda parent: table.get(parent, [])


def _listed_children(parent: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{parent}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _end_like(status: int | None) -> NoReturn:
    code = 1 if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the runner's own core is the interesting one
        with contextlib.suppress(OSError):  # KILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        code = 128 - code
    os._exit(code)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def limit_memory(limit_bytes: int) -> None:
    """Have the kernel refuse this process, and each it starts, more than `limit_bytes` of memory of its own; 0 is no limit.

    RLIMIT_DATA, not RLIMIT_AS: the C library reserves 64 MiB of addresses for each thread without using them, so that 16
    idle threads make an address space of 1.1 GiB out of 37 MiB, but data of 150 MiB (8 MiB of stack each).
    """
    if limit_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main() -> None:
    module, descriptor, worker, memory_bytes = sys.argv[1], *map(int, sys.argv[2:5])
    guard = Guard(worker)
    if guard.fork():
        limit_memory(memory_bytes)
        importlib.import_module(module).main(descriptor)
    else:
        os.close(descriptor)  # the worker shall see when the runner hangs up
        guard.watch()


if __name__ == "__main__":
    main()
