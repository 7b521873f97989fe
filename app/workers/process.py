"""`RunnerProcess`: one child and its wire, seen from the worker. It knows what was given to it, not what that means."""

import asyncio
import codecs
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog

from app.core.slots import AHEAD_SECONDS, Kind, Load
from app.core.task import ClaimedTask, JsonText
from app.services.executors import RunnerSetup
from app.workers.frames import FrameBuffer, encode

LONGEST_LINE = 8192
OUTPUT_LINES_A_SECOND = 50
"""What user code prints goes to the log, up to this many lines a second of each runner; the rest is counted."""


@dataclass(slots=True, eq=False)
class Given:
    """One attempt in a runner. `began` is monotonic: when its code started, as far as we know; None while it waits."""

    task: ClaimedTask
    kind: Kind
    checkpoints: Sequence[JsonText] = ()
    given_at: float = 0.0
    began: float | None = None
    stop_reason: str | None = None
    kill_at: float | None = None
    checkpointed: bool = False
    saved_files: bool = False
    progress: JsonText | None = None

    @property
    def key(self) -> tuple[int, int]:
        return (self.task.id, self.task.lease)


class WholeLines:
    """Puts together the lines, and the characters, that reads from a pipe cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that are complete with `chunk`; an empty chunk is the end and completes the last one. What has no
        end after LONGEST_LINE characters is a line too."""
        lines = (self._rest + self._decoder.decode(chunk, final=not chunk)).split("\n")
        self._rest = lines.pop()
        if not chunk or len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = ""
        return lines


class Owner(Protocol):
    """Who hears of a runner: the pool in production."""

    def heard(self, runner: "RunnerProcess", message: dict[str, Any]) -> None: ...

    def gone(self, runner: "RunnerProcess", evidence: str) -> None: ...


class Output(Protocol):
    """Who is told what user code in a runner prints; `inside` are attempts that may have printed it."""

    def printed(self, runner: "RunnerProcess", line: str, inside: Sequence[Given]) -> None: ...

    def dropped(self, runner: "RunnerProcess", lines: int) -> None:
        """So many lines were more than is passed on."""
        ...


class OutputLog:
    """Writes what is printed to the worker's log."""

    def printed(self, runner: "RunnerProcess", line: str, inside: Sequence[Given]) -> None:
        log = structlog.get_logger("app.runner")
        log.info("printed", pid=runner.pid, tasks=[given.task.id for given in inside], line=line)

    def dropped(self, runner: "RunnerProcess", lines: int) -> None:
        log = structlog.get_logger("app.runner")
        log.warning("runner printed more than is logged", pid=runner.pid, lines_dropped=lines)


class RunnerProcess(asyncio.Protocol):
    """A child process that runs executors. `gone` is called exactly once, when it has ended for whatever reason."""

    def __init__(self, owner: Owner, output: Output | None = None) -> None:
        self._owner = owner
        self._output = output or OutputLog()
        self._frames = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self.given: dict[tuple[int, int], Given] = {}
        self.ready = False
        self.draining = False
        self.guilty: Given | None = None
        self.started_at = time.monotonic()
        self._concurrency = 1
        self._recalled = False

    async def start(self, setup: RunnerSetup) -> None:
        """Start the child. It is `ready` once it has loaded its executors."""
        self._concurrency = setup.concurrency
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await _spawn(theirs.fileno())
            ours.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._watching = asyncio.create_task(self._watch())
        self._say({"start": asdict(setup)})

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def load(self) -> Load:
        plain = sum(given.kind == "plain" for given in self.given.values())
        alone = any(given.task.runs_alone for given in self.given.values())
        long_ago = time.monotonic() - AHEAD_SECONDS
        self.draining = self.draining and bool(self.given)
        return Load(
            plain,
            len(self.given) - plain,
            slow=any(given.began is not None and given.began < long_ago for given in self.given.values()),
            reserved=alone or self.draining or not self.ready,
            draining=self.draining,
        )

    def give(self, batch: Sequence[Given]) -> None:
        """Hand over attempts to run, in this order."""
        now = time.monotonic()
        for one in batch:
            one.given_at = now
            self.given[one.key] = one
        self._recalled = False
        self._head_begins(now)
        self._say({"run": [_run_entry(one) for one in batch]})

    def take(self, key: tuple[int, int]) -> Given | None:
        """What was given under `key`, which from now on is no longer here."""
        given = self.given.pop(key, None)
        self._head_begins(time.monotonic())
        return given

    def stop(self, given: Iterable[Given], reason: str, kill_at: float) -> None:
        """Ask attempts to end; the first reason stays. Whoever watches the clock kills at `kill_at`."""
        asked = []
        for one in given:
            if one.stop_reason is None:
                one.stop_reason, one.kill_at = reason, kill_at
                asked.append([*one.key, reason])
        if asked:
            self._say({"stop": asked})

    def recall(self) -> None:
        """Ask for what has not begun; it comes back as `returned`."""
        if not self._recalled:
            self._recalled = True
            self._say({"recall": True})

    def acknowledge(self, number: int, stored: bool) -> None:
        """Tell a waiting checkpoint call what came of it."""
        self._say({"stored": [[number, stored]]})

    def kill(self, guilty: Given | None = None) -> None:
        """End the child and all it started, at once. `guilty` is the attempt that brought it about, if one did."""
        self.guilty = self.guilty or guilty
        if self._process is not None and self._process.returncode is None:
            _kill_group(self._process.pid)

    async def ended(self) -> None:
        """Return when the child is gone and has been reported."""
        if self._watching is not None:
            await self._watching

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._frames.feed(data)
        except ValueError:  # user code wrote into our socket; nothing it says can be trusted any more
            self.kill()
            return
        for message in messages:
            self._owner.heard(self, message)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def _head_begins(self, now: float) -> None:
        # The runner reports beginnings within a tick, unless user code holds the interpreter from its first moment: so
        # the clock of an attempt starts when it comes so far forward in line that it should have begun.
        for place, one in enumerate(self.given.values()):
            if place >= (1 if one.kind == "plain" else self._concurrency):
                break
            if one.began is None:
                one.began = now

    def _say(self, message: dict[str, Any]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    async def _watch(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        pumps = [asyncio.create_task(self._log_output(stream)) for stream in (process.stdout, process.stderr)]
        code = await process.wait()
        _kill_group(process.pid)  # whatever it started and left behind
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()
        self._owner.gone(self, _evidence(code))

    async def _log_output(self, stream: asyncio.StreamReader) -> None:
        """Pass on what the runner prints, line by line, without ever falling behind a flood."""
        window, lines, dropped = time.monotonic(), 0, 0
        whole = WholeLines()
        reading = True
        while reading:
            chunk = await stream.read(1 << 16)
            reading = bool(chunk)
            now = time.monotonic()
            if now - window > 1:
                if dropped:
                    self._output.dropped(self, dropped)
                window, lines, dropped = now, 0, 0
            inside = list(self.given.values())[:10]
            for line in whole.feed(chunk):
                if lines >= OUTPUT_LINES_A_SECOND:
                    dropped += 1
                elif line.strip():
                    lines += 1
                    self._output.printed(self, line[:500], inside)


async def _spawn(descriptor: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.workers.runner", str(descriptor), str(os.getpid())),
        pass_fds=(descriptor,),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A group of its own: a terminal's Ctrl-C is not for it, and its children can be killed with it.
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )


def _run_entry(one: Given) -> list[Any]:
    task = one.task
    return [
        *(task.id, task.lease, task.task_type, task.payload, task.attempt, task.timeout_seconds),
        list(one.checkpoints),
    ]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _evidence(code: int) -> str:
    if code >= 0:
        return f"its runner exited with status {code}"
    try:
        return f"its runner was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"its runner was killed by signal {-code}"
