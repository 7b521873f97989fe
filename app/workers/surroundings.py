"""What attempts share because they run in one process: user code may change it, and the next attempt finds it as it was."""

# The handlers as they are: `signal.getsignal` turns each into an enumeration first, ten times as slow, after each attempt.
import _signal  # type: ignore[import-not-found]  # the standard library has it, its type stubs do not
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_SIGNALS = tuple(
    map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE))
)


class Surroundings:
    """Remembers folder, signal handlers and output streams of this process. On the main thread only."""

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._handlers: dict[int, Callable[..., Any] | int | None] = {
            number: _signal.getsignal(number) for number in _SIGNALS
        }
        self._output, self._errors = sys.stdout, sys.stderr

    def restore(self) -> None:
        """Put back what is different. Cheap where nothing is: it runs after each attempt."""
        # An alarm that user code has set would hit whoever runs next.
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) != handler and handler is not None:
                signal.signal(number, handler)
        if _folder() != self._folder:
            with contextlib.suppress(OSError):  # it is gone for good: nothing could be put back
                os.chdir(self._folder)
        sys.stdout, sys.stderr = self._output, self._errors


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # the folder user code went to does not exist any more
        return None


def resident_bytes(pid: int | str = "self") -> int:
    """Memory a process has in use (resident set size), by default this one; 0 where the system does not say."""
    # Opened each time: a descriptor kept open is one that user code may have closed and opened as something else.
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, those that these have started, and so on, nearest first; none where the
    system does not say. What they start besides their main thread is not seen."""
    found = [pid]
    for parent in found:
        found += map(int, _read(f"/proc/{parent}/task/{parent}/children").split())
    return found[1:]


def _read(path: str) -> bytes:
    """What is in a small file of /proc; nothing where there is none (any more)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the process ended meanwhile
        return b""
    finally:
        os.close(descriptor)
