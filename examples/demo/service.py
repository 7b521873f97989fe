"""Starts an API and two workers on a free port, in a temporary folder, and stops them whatever happens."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
START_SECONDS = 30
STOP_SECONDS = 10
TAIL_LINES = 12
WORKERS = ("worker-1", "worker-2")
RUNNERS = 2
LEASE_SECONDS, SWEEP_SECONDS = 3, 0.5
"""Shorter than the defaults of 30 and 5 s, so that it does not take long until the tasks of a dead worker run again."""
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "SYSTEMROOT")
KEPT_AI = ("AI_BASE_URL", "AI_API_KEY", "AI_MODEL")


class DemoFailed(Exception):
    """The demo cannot show what it promises; the message says why."""


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise DemoFailed(otherwise)


@dataclass(frozen=True)
class Child:
    """A process of ours, API or worker, and the file it logs to."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def logged(self, pattern: str) -> str | None:
        """The group of `pattern` in its log, None if it is not there (yet)."""
        found = re.search(pattern, self.log.read_text(errors="replace"))
        return found[1] if found else None

    def ensure_alive(self) -> None:
        """Raise DemoFailed, with what it logged last, if the process has ended."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            raise DemoFailed(f"{self.name} ended with status {self.process.returncode}. It said:\n{tail}")

    async def says(self, pattern: str) -> str:
        """Wait until its log has `pattern`, and return the group."""
        deadline = time.monotonic() + START_SECONDS
        while (found := self.logged(pattern)) is None:
            self.ensure_alive()
            expect(time.monotonic() < deadline, f"{self.name} did not say {pattern} within {START_SECONDS} s.")
            await asyncio.sleep(0.05)
        return found


@dataclass
class Service:
    """An API and its workers. Everything that was ever started is in `children`, to be stopped in the end."""

    folder: Path
    children: list[Child] = field(default_factory=list)
    workers: dict[str, Child] = field(default_factory=dict)
    killed_at: dict[str, float] = field(default_factory=dict)
    """When a worker was killed, by name, while none has taken its place."""
    url: str = ""

    @property
    def api(self) -> Child:
        return self.children[0]

    async def start(self) -> None:
        """API and workers, ready for work."""
        api = self._start("API", "run_api.py", "--port", "0")
        self.url = await api.says(r"Listening on (http://\S+)")
        for name in WORKERS:
            self.start_worker(name)
        for worker in self.workers.values():
            await worker.says(r"(worker started)")

    def start_worker(self, name: str) -> Child:
        worker = self._start(name, "run_worker.py", "--processes", str(RUNNERS), "--name", name)
        self.workers[name] = worker
        self.killed_at.pop(name, None)
        return worker

    def kill_worker(self, name: str) -> None:
        """As a crash or the system's memory killer would: without a word of warning."""
        self.killed_at[name] = time.perf_counter()
        os.kill(self.workers[name].process.pid, signal.SIGKILL)

    def ensure_alive(self) -> None:
        """Raise DemoFailed if something has ended that nobody killed."""
        self.api.ensure_alive()
        for name, worker in self.workers.items():
            if name not in self.killed_at:
                worker.ensure_alive()

    def stop(self) -> None:
        """SIGTERM, time to finish, then SIGKILL; the API last."""
        for child in self.children[::-1]:
            child.process.terminate()
        for child in self.children:
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _start(self, name: str, script: str, *arguments: str) -> Child:
        log = self.folder / f"{name}-{len(self.children)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 a program of ours
                [sys.executable, str(HOME / script), *arguments],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for this process, which then stops its children in order
            )
        self.children.append(Child(name, process, log))
        return self.children[-1]

    def _environment(self) -> dict[str, str]:
        """A clean one: neither settings nor a `.env` of whoever runs the demo reach the children, but for an AI endpoint."""
        settings = {
            "DATABASE_URL": f"sqlite:///{self.folder}/tasks.db",
            "FILES_DIR": f"{self.folder}/files",
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "SWEEP_SECONDS": str(SWEEP_SECONDS),
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(HOME),
            "TMPDIR": str(self.folder),
        }
        kept = KEPT + (KEPT_AI if os.environ.get("AI_BASE_URL") else ())
        return {name: os.environ[name] for name in kept if name in os.environ} | settings


@contextmanager
def service_folder(signals: "StopSignals") -> Iterator[Service]:
    """A service that is not started yet, in a folder of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True) as name:
        service = Service(Path(name))
        try:
            yield service
        finally:
            signals.ignore()
            service.stop()


class StopSignals:
    """Turns every signal that asks us to end into SystemExit, so that what was started is stopped on the way out."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._cancel: Callable[[], object] | None = None
        self._status = 0

    def __enter__(self) -> "StopSignals":
        self._before = [signal.signal(number, self._leave) for number in self.NUMBERS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self.NUMBERS, self._before, strict=True):
            signal.signal(number, handler)

    def ignore(self) -> None:
        """From now on nothing interrupts: an impatient second Ctrl-C must not leave processes behind."""
        for number in self.NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in an event loop. A signal cancels it; an exception in the middle of some task would be noise."""

        async def cancellable() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                await work
            finally:
                self._cancel = None

        try:
            asyncio.run(cancellable())
        except asyncio.CancelledError:
            raise SystemExit(self._status) from None

    def _leave(self, number: int, frame: object) -> None:
        self._status = 128 + number
        if self._cancel is None:
            raise SystemExit(self._status)
        self._cancel()
