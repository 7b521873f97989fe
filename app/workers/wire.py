"""The runner's end of the socket to its worker: what is to be said gathers here and goes out in as few frames as can be."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson

from app.core.file import StoredFile, content_type_of, label_of
from app.core.secrets import Redactor
from app.services.executors import Context, Executor, FileSource, RunnerSetup
from app.services.file_store import CHUNK_BYTES, FileStore
from app.workers.frames import encode, file_to_wire
from app.workers.results import Unstorable, result_text, storable
from app.workers.surroundings import resident_bytes

LOG_LINES_A_SECOND = 100
MOST_LOG_FIELDS = 20
LONGEST_LOG_FIELD = 500
BATCH_SECONDS = 0.004
"""Finished attempts are held back this long when more short ones follow, so that one frame carries many."""


@dataclass(slots=True)
class Job:
    """One attempt inside this runner."""

    id: int
    lease: int
    executor: Executor
    payload: str
    context: Context
    task: asyncio.Task[None] | None = None
    began: float = 0.0

    @property
    def key(self) -> tuple[int, int]:
        return (self.id, self.lease)


class Wire:
    """The runner's end of the socket: collects what is to be said and says it in as few frames as it can."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        # Re-entrant: the garbage collector may run user code (a `__del__` that logs) in the middle of anything.
        self._lock = threading.RLock()
        self._sending = threading.Lock()
        self._lists: dict[str, list[Any]] = {}
        self._running: dict[tuple[int, int], float] = {}
        self._progress: dict[tuple[int, int], str] = {}
        self._asked: dict[int, Future[bool]] = {}
        self._numbers = iter(range(sys.maxsize))
        self._said_at = time.monotonic()
        self._log_window, self._log_lines, self._log_dropped = 0.0, 0, 0

    def began(self, job: Job) -> None:
        with self._lock:
            self._running[job.id, job.lease] = job.began

    def ended(self, job: Job, *outcome: Any) -> None:
        with self._lock:
            self._running.pop((job.id, job.lease), None)
            seconds = time.monotonic() - job.began
            self._lists.setdefault("done", []).append([job.id, job.lease, seconds, *outcome])

    def progress(self, id_: int, lease: int, text: str) -> None:
        with self._lock:
            self._progress[id_, lease] = text

    def log(self, entry: Any) -> None:
        """Pass a log line on, up to a number a second: a loop that logs must not keep the worker from its leases."""
        with self._lock:
            now = time.monotonic()
            if now - self._log_window > 1:
                if self._log_dropped:
                    notice = [
                        *entry[:2],
                        "the executor logged more than is kept",
                        {"lines_dropped": self._log_dropped},
                    ]
                    self._lists.setdefault("log", []).append(notice)
                self._log_window, self._log_lines, self._log_dropped = now, 0, 0
            if self._log_lines < LOG_LINES_A_SECOND:
                self._log_lines += 1
                self._lists.setdefault("log", []).append(entry)
            else:
                self._log_dropped += 1

    def add(self, kind: str, entry: Any) -> None:
        with self._lock:
            self._lists.setdefault(kind, []).append(entry)

    def ask(self, kind: str, *entry: Any) -> "Future[bool]":
        """Send something to be stored, at once; done when the worker says that it is, or that the lease is lost."""
        number = next(self._numbers)
        stored = self._asked[number] = Future()
        stored.set_running_or_notify_cancel()  # a caller that gives up waiting must not cancel what is on its way
        self.add(kind, [number, *entry])
        self.flush()
        return stored

    def acknowledge(self, number: int, stored: bool) -> None:
        """What came of what was asked under `number`."""
        self._asked.pop(number).set_result(stored)

    @property
    def overdue(self) -> bool:
        return time.monotonic() - self._said_at > BATCH_SECONDS

    def flush(self) -> None:
        """Say everything that has gathered. Blocks while the worker does not read; that is the back-pressure."""
        with self._sending:
            with self._lock:
                message: dict[str, Any] = self._lists
                if self._running:
                    now = time.monotonic()
                    message["running"] = [[*key, now - began] for key, began in self._running.items()]
                if self._progress:
                    message["progress"] = [[*key, text] for key, text in self._progress.items()]
                self._lists, self._running, self._progress = {}, {}, {}
                self._said_at = time.monotonic()
            if "done" in message:
                message["memory"] = resident_bytes()
            if message:
                self.connection.sendall(encode(message))


class JobReports:
    """Where the context of one job reports to."""

    def __init__(
        self, wire: Wire, id_: int, lease: int, setup: RunnerSetup, files: FileStore, redact: Redactor
    ) -> None:
        self._wire = wire
        self._setup = setup
        self._files = files
        self._redact = redact
        self._key = (id_, lease)

    def progress(self, percent: float | None, message: str | None, data: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = None if message is None else storable(self._redact(str(message)), 500)
        text = result_text(
            {"percent": percent, "message": message, "data": self._redact.data(data), "updated_at": now}, 16 * 1024
        )
        self._wire.progress(*self._key, text)

    def log(self, message: str, fields: dict[str, Any]) -> None:
        text = storable(self._redact(str(message)), 2000)
        shown = {
            storable(str(key), 64): _shown(self._redact.data(value))
            for key, value in list(fields.items())[:MOST_LOG_FIELDS]
        }
        self._wire.log([*self._key, text, shown])

    def checkpoint(self, data: Any) -> "Future[bool]":
        return self._wire.ask("checkpoint", *self._key, result_text(data, self._setup.max_result_bytes))

    def open_file(self, file_id: str) -> IO[bytes]:
        return self._files.open(file_id)

    def write_file(self, source: FileSource, name: str, content_type: str) -> StoredFile:
        with self._files.create(self._setup.max_output_bytes) as draft:
            for chunk in _chunks(source):
                draft.write(chunk)
            sha256 = draft.commit()
        return StoredFile(
            draft.id, label_of(name), draft.size, content_type_of(content_type), sha256, datetime.now(UTC)
        )

    def keep_file(self, file: StoredFile, temporary: bool) -> "Future[bool]":
        return self._wire.ask("file", *self._key, file_to_wire(file), temporary)


def _shown(value: Any) -> Any:
    """A field of a log line: JSON as it is, where it is short, text otherwise."""
    if value is None or isinstance(value, bool):
        return value
    try:
        text = result_text(value, LONGEST_LOG_FIELD)
    except Unstorable:
        return storable(str(value), LONGEST_LOG_FIELD)
    return orjson.loads(text)


def _chunks(source: FileSource) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
    elif isinstance(source, Path):
        with source.open("rb") as stream:
            yield from _chunks(stream)
    else:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk
