"""`RunnerProcess`: one child and its wire, seen from the worker. It knows what was given to it, not what that means."""

import asyncio
import codecs
import contextlib
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from app.core.attempt_log import AttemptLog, Source
from app.core.logger import structlog
from app.core.slots import AHEAD_SECONDS, MOST_AHEAD, Kind, Load
from app.core.task import ClaimedTask, JsonText
from app.services.executors import RunnerSetup
from app.workers.frames import FrameBuffer, encode
from app.workers.guard import END, OUT_OF_MEMORY_STATUS
from app.workers.oom import OomKills
from app.workers.output import unmarked

LONGEST_LINE = 8192
KILL_PATIENCE_SECONDS = 3.0
"""A guard that has not obeyed by then is killed itself."""
HANG_UP_SECONDS = 0.5
"""A runner that dies hangs up first; one that lives on this long without its socket is of no use."""
RECENT = 2 * MOST_AHEAD
"""Attempts that are over and may still have lines on their way."""
LAST_WORDS_SECONDS = 0.5
CHARACTERS_A_FRAME = 2**20
"""Attempts whose payloads and checkpoints have more together go to the runner in several frames."""
OUT_OF_MEMORY_KILL = ", the kernel's, for want of memory: its control group has just counted one more"
OUTPUT_LINES_A_SECOND = 50
"""What user code prints goes to the log, up to this many lines a second of each runner; the rest is counted."""


@dataclass(slots=True, eq=False)
class Given:
    """One attempt in a runner. `began` is monotonic: when its code started, as far as we know; None while it waits.
    `expected_seconds`: how long it may take, 0 where nobody knows."""

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
    log: AttemptLog | None = None
    expected_seconds: float = 0.0

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
    """A child process that runs executors. `gone` is called exactly once, when it has ended for whatever reason.

    The child is a guard (`guard.py`), the runner is a child of that: what is left when `gone` is called is nothing, not
    even what user code has started.
    """

    def __init__(
        self,
        owner: Owner,
        output: Output | None = None,
        oom_kills: OomKills | None = None,
        redact: Callable[[str], str] = str,
        keep: Callable[[Given, Source, str], None] | None = None,
    ) -> None:
        """`keep` is given every line of which it is known which attempt printed it."""
        self._owner = owner
        self._keep = keep
        self._output = output or OutputLog()
        self._redact = redact
        self._oom_kills = oom_kills
        self._broke: str | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._recent: deque[Given] = deque(maxlen=RECENT)
        self._frames = FrameBuffer()
        self._transport: asyncio.WriteTransport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self.given: dict[tuple[int, int], Given] = {}
        self._plain = self._alone = 0
        self._expected_seconds = 0.0
        self.ready = False
        self.draining = False
        self.retiring = False
        self.finished = 0
        self.guilty: Given | None = None
        self.started_at = time.monotonic()
        self._concurrency = 1
        self._recalled = False

    async def start(self, setup: RunnerSetup, memory_bytes: int = 0, most_seconds: float = 30.0) -> None:
        """Start the child. It is `ready` once it has loaded its executors, and killed if it is not after `most_seconds`.
        The kernel gives it, and each process that it starts, no more than `memory_bytes`; 0 is no limit."""
        self._concurrency = setup.concurrency
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await _spawn(theirs.fileno(), memory_bytes)
            ours.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            raise
        self._watching = asyncio.create_task(self._watch())
        self._say({"start": asdict(setup)})
        self._later(most_seconds, lambda: self._must_be_ready(most_seconds))

    @property
    def pid(self) -> int:
        """The guard's."""
        return self._process.pid if self._process else 0

    @property
    def load(self) -> Load:
        """Asked for several times a batch, so it looks at no more than the first attempt: they begin in the order in which
        they were given, so that one has been running for longest."""
        self.draining = self.draining and bool(self.given)
        first = next(iter(self.given.values()), None)
        began = None if first is None else first.began
        return Load(
            self._plain,
            len(self.given) - self._plain,
            slow=began is not None and began < time.monotonic() - AHEAD_SECONDS,
            reserved=self._alone > 0 or self.draining or self.retiring or not self.ready,
            draining=self.draining,
            seconds=self._expected_seconds / (1 if self._plain else self._concurrency),
        )

    def give(self, batch: Sequence[Given]) -> None:
        """Hand over attempts to run, in this order."""
        now = time.monotonic()
        for one in batch:
            one.given_at = now
            self.given[one.key] = one
            self._plain += one.kind == "plain"
            self._alone += one.task.runs_alone
            self._expected_seconds += one.expected_seconds
        self._recalled = False
        self._head_begins(now)
        for portion in _portions(batch):
            self._say({"run": [_run_entry(one) for one in portion]})

    def take(self, key: tuple[int, int]) -> Given | None:
        """What was given under `key`, which from now on is no longer here."""
        given = self.given.pop(key, None)
        if given is not None:
            self._recent.append(given)
            self._plain -= given.kind == "plain"
            self._alone -= given.task.runs_alone
            self._expected_seconds = self._expected_seconds - given.expected_seconds if self.given else 0.0
        return given

    def take_all(self) -> list[Given]:
        """All that was given: its process is gone."""
        return [given for key in list(self.given) if (given := self.take(key)) is not None]

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
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, END)
                os.kill(self._process.pid, signal.SIGCONT)  # user code may have stopped it
            self._later(KILL_PATIENCE_SECONDS, partial(_kill_group, self._process.pid))

    async def ended(self) -> None:
        """Return when the child is gone and has been reported."""
        if self._watching is not None:
            await self._watching

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._owner.heard(self, message)
                self._head_begins(time.monotonic())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # User code wrote into our socket; nothing it says can be trusted any more. What was heard before holds.
            self._broken(f"its runner's socket brought something that is no message of ours ({type(error).__name__})")

    def connection_lost(self, error: Exception | None) -> None:
        self._later(HANG_UP_SECONDS, lambda: self._broken("its runner closed its socket and lived on"))

    def _must_be_ready(self, seconds: float) -> None:
        if not self.ready:
            self._broken(f"its runner was not ready after {seconds:g} s (RUNNER_START_SECONDS)")

    def _broken(self, how: str) -> None:
        self._broke = self._broke or how
        self.kill()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, act))

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
        streams = ((process.stdout, Source.STDOUT), (process.stderr, Source.STDERR))
        pumps = [asyncio.create_task(self._log_output(stream, source)) for stream, source in streams]
        code = await process.wait()
        for timer in self._timers:
            timer.cancel()
        # The last words before a crash are the most telling. Nobody is left who could write more, unless the guard was
        # killed and something it guarded was not.
        await asyncio.wait(pumps, timeout=LAST_WORDS_SECONDS)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()
        self._owner.gone(self, self._evidence(code))

    def _evidence(self, code: int) -> str:
        out_of_memory = self._oom_kills is not None and self._oom_kills.more()
        if code == OUT_OF_MEMORY_STATUS:
            return "its runner had no memory left to go on (RUNNER_MEMORY_BYTES)"
        if code >= 0:
            return f"its runner exited with status {code}"
        if code != -signal.SIGKILL:
            return f"its runner was killed by {_signal_name(-code)}"
        if self._broke is not None:
            return self._broke
        return "its runner was killed by SIGKILL" + (OUT_OF_MEMORY_KILL if out_of_memory else "")

    async def _log_output(self, stream: asyncio.StreamReader, source: Source) -> None:
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
            for key, line in (part for whole_line in whole.feed(chunk) for part in unmarked(whole_line)):
                speakers = inside if key is None else self._speaker(key)
                if self._keep is not None and len(speakers) == 1 and line.strip():
                    self._keep(speakers[0], source, line)
                if lines >= OUTPUT_LINES_A_SECOND:
                    dropped += 1
                elif line.strip():
                    lines += 1
                    self._output.printed(self, self._redact(line)[:500], speakers)

    def _speaker(self, key: tuple[int, int]) -> list[Given]:
        """The attempt that a line names. It may be over: lines and outcomes come by different ways."""
        if (given := self.given.get(key)) is not None:
            return [given]
        return [given for given in self._recent if given.key == key][:1]


async def _spawn(descriptor: int, memory_bytes: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.workers.guard", "app.workers.runner"),
        *(str(descriptor), str(os.getpid()), str(memory_bytes)),
        pass_fds=(descriptor,),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A session of its own: a terminal's Ctrl-C is not for it.
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )


def _portions(batch: Sequence[Given]) -> Iterator[Sequence[Given]]:
    """Parts that make frames of a size that the other end takes, and can begin with while the rest is on its way."""
    begin = characters = 0
    for place, one in enumerate(batch):
        characters += len(one.task.payload) + sum(map(len, one.checkpoints))
        if characters > CHARACTERS_A_FRAME:
            yield batch[begin : place + 1]
            begin, characters = place + 1, 0
    if begin < len(batch):
        yield batch[begin:]


def _run_entry(one: Given) -> list[Any]:
    task = one.task
    return [
        *(task.id, task.lease, task.task_type, task.payload, task.attempt, task.timeout_seconds),
        *(list(one.checkpoints), task.traceparent, task.tracestate),
    ]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
