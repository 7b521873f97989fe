"""Executors that misbehave in every way we could think of, for tests/workers/test_isolation.py."""

import asyncio
import contextlib
import ctypes
import json
import math
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from app.core.retry import RetryPolicy
from app.services.executors import Context, Fail, StopRequested, executor

AT_ONCE = RetryPolicy(base_seconds=0.01, ceiling_seconds=0.02)
HOARD: list[bytearray] = []


class How(BaseModel):
    """`how` is what to do, `folder` where to leave a trace, `number` how much."""

    how: str = ""
    folder: str = ""
    number: int = 0


def our_socket() -> int:
    """The descriptor of the runner's socket, which its command line names."""
    number = int(sys.argv[2])
    assert stat.S_ISSOCK(os.fstat(number).st_mode)
    return number


def frame(message: object) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


# Ways to take the runner along. None of them returns.


def segfault() -> None:
    ctypes.string_at(0)


def native_abort() -> None:
    ctypes.CDLL(None).abort()


def die_when_idle() -> None:
    """The runner must not live on without its socket."""
    os.close(our_socket())
    time.sleep(60)


def daemonise() -> None:
    """What a careless daemon does first."""
    os.closerange(3, 256)
    time.sleep(60)


def impostor() -> None:
    """Another file takes the number of our socket."""
    number = our_socket()
    with Path(os.devnull).open("rb") as other:
        os.dup2(other.fileno(), number)
    time.sleep(60)


def shut_socket() -> None:
    duplicate = socket.socket(fileno=os.dup(our_socket()))
    duplicate.shutdown(socket.SHUT_RDWR)
    time.sleep(60)


def write_garbage() -> None:
    os.write(our_socket(), b"\xff\xff\xff\xff garbage")
    time.sleep(60)


def write_no_json() -> None:
    os.write(our_socket(), struct.pack(">I", 5) + b"hello")
    time.sleep(60)


def write_wrong_shape() -> None:
    os.write(our_socket(), frame({"done": [[1]], "running": 5}))
    time.sleep(60)


def write_no_object() -> None:
    os.write(our_socket(), frame(7))
    time.sleep(60)


def kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def kill_own_group() -> None:
    os.killpg(0, signal.SIGKILL)


def alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(60)


def grow_stack() -> None:
    sys.setrecursionlimit(10**9)
    threading.stack_size(0)

    def deeper(text: str) -> Any:
        return eval(text, {"deeper": deeper, "text": text})

    deeper("deeper(text)")


def flood_and_exit() -> None:
    flood()
    os._exit(4)


DEADLY: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        *(segfault, native_abort, die_when_idle, daemonise, impostor, shut_socket, write_garbage, write_no_json),
        *(write_wrong_shape, write_no_object, kill_parent, kill_own_group, alarm, grow_stack, flood_and_exit),
    )
} | {
    "exit_at_once": lambda: os._exit(3),
    "exit_with_success": lambda: os._exit(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


# Ways to raise.


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not to be pickled")


class ExitsWhenShown(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class Nameless(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")


class WithoutName(Exception, metaclass=Nameless):
    pass


def caused_by_itself() -> None:
    error = ValueError("round and round")
    error.__cause__ = error
    raise error


def deep_chain() -> None:
    error: BaseException = ValueError("the first")
    for number in range(5000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    raise error


def odd_notes() -> None:
    error = ValueError("with notes")
    error.__notes__ = 5  # type: ignore[assignment]  # on purpose
    raise error


def endless_recursion() -> None:
    endless_recursion()


def failed_with_cause() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise Fail("because of that") from error


def _raiser(error: BaseException | type[BaseException]) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


RAISING: dict[str, Callable[[], None]] = {
    "sys_exit": lambda: sys.exit(3),
    "keyboard_interrupt": _raiser(KeyboardInterrupt),
    "generator_exit": _raiser(GeneratorExit),
    "cancelled_error": _raiser(asyncio.CancelledError),
    "stop_requested": _raiser(StopRequested("made up")),
    "group": _raiser(BaseExceptionGroup("several", [SystemExit(1), ValueError("x")])),
    "unpicklable": lambda: _raiser(Unpicklable())(),
    "exits_when_shown": _raiser(ExitsWhenShown),
    "without_name": _raiser(WithoutName),
    "huge_message": lambda: _raiser(ValueError("x" * 50_000_000))(),
    "nul_message": _raiser(ValueError("a\x00b\ud800")),
    "caused_by_itself": caused_by_itself,
    "deep_chain": deep_chain,
    "odd_notes": odd_notes,
    "endless_recursion": endless_recursion,
}


# Ways to go on as if nothing were, with things left changed.


def raise_in_thread() -> None:
    thread = threading.Thread(target=_raiser(ValueError("in a thread")))
    thread.start()
    thread.join()


def change_everything() -> None:
    os.chdir("/")
    with contextlib.suppress(OSError):
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    sys.stdout.close()
    sys.stdout = sys.stderr = None


def flood() -> None:
    for _ in range(2000):
        os.write(1, b"f" * 4096 + b"\n")
        os.write(2, b"\xff" * 4096)


def no_line_end() -> None:
    sys.stdout.write("x" * 50_000)
    sys.stdout.writelines(["y", "z"])


def print_in_finalizer() -> None:
    class Talkative:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            print("collected")  # noqa: T201

    for _ in range(20_000):
        Talkative()


HARMLESS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (raise_in_thread, change_everything, flood, no_line_end, print_in_finalizer)
}


@executor("misbehave", payload=How, max_attempts=1, timeout_seconds=30)
def misbehave(payload: How, context: Context) -> str:
    """Does what `how` names."""
    (DEADLY | RAISING | HARMLESS | {"failed_with_cause": failed_with_cause})[payload.how]()
    return "went on"


@executor("poison", payload=How, max_attempts=2, retry=AT_ONCE)
def poison(payload: How, context: Context) -> None:
    (DEADLY | RAISING)[payload.how]()


# Results.


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["me"] = value
    return value


class Floats(BaseModel):
    value: float = math.nan


class Keys(BaseModel):
    value: dict[int | str, int] = {1: 1, "1": 2}


class Evil(dict[str, Any]):
    def items(self) -> Any:
        raise SystemExit("no items")


RESULTS: dict[str, Callable[[], Any]] = {
    "nul": lambda: {"a": "\x00"},
    "nul_key": lambda: {"\x00": 1},
    "nan": lambda: [math.nan],
    "infinity": lambda: -math.inf,
    "nan_in_model": Floats,
    "large": lambda: "x" * 100_000_000,
    "set": lambda: {1},
    "bytes": lambda: b"x",
    "object": object,
    "function": lambda: nested,
    "surrogate": lambda: "\udcff",
    "cycle": cycle,
    "deep": lambda: nested(400),
    "deeper": lambda: nested(1000),
    "deepest": lambda: nested(100_000),
    "colliding": lambda: {1: "a", "1": "b"},
    "colliding_words": lambda: {None: 1, "null": 2},
    "colliding_in_model": Keys,
    "tuple_key": lambda: {(1, 2): 3},
    "large_integer": lambda: {"n": 2**63},
    "small_integer": lambda: -(2**63) - 1,
    "enormous_integer": lambda: 10**5000,
    "coroutine": lambda: (item for item in ()),
    "evil": lambda: Evil(a=1),
}


@executor("give", payload=How, max_attempts=1)
def give(payload: How, context: Context) -> Any:
    """Returns what `how` names."""
    return RESULTS[payload.how]()


# Ways not to listen. Each has a limit of its own making too, so that a test that fails ends.

LIMIT_SECONDS = 40.0


def swallow_everything() -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def wait_for_thread() -> None:
    thread = threading.Thread(target=swallow_everything)
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(BaseException):
            thread.join()


def regular_expression() -> None:
    re.match(r"(a+)+$", "a" * 40 + "b")


def long_sum() -> None:
    sum(range(10**11))


def large_power() -> None:
    _ = 7 ** (10**9)


def sleep_in_native_code() -> None:
    ctypes.CDLL(None).sleep(int(LIMIT_SECONDS))


def hold_interpreter_in_native_code() -> None:
    ctypes.PyDLL(None).sleep(int(LIMIT_SECONDS))


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    swallow_everything()


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_parent() -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    swallow_everything()


def trace_forever() -> None:
    sys.settrace(lambda *_: None)
    swallow_everything()


DEAF: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        *(swallow_everything, wait_for_thread, regular_expression, long_sum, large_power, sleep_in_native_code),
        *(hold_interpreter_in_native_code, block_signals, stop_itself, stop_parent, trace_forever),
    )
}


@executor("deaf", payload=How, max_attempts=1, timeout_seconds=0.3)
def deaf(payload: How, context: Context) -> None:
    if payload.folder:
        (Path(payload.folder) / f"began-{context.task_id}").touch()
    DEAF[payload.how]()


@executor("deaf_shared", payload=How, max_attempts=1, timeout_seconds=0.3)
async def deaf_shared(payload: How, context: Context) -> None:
    """Blocks its loop, or swallows its cancellation."""
    if payload.how == "block":
        time.sleep(LIMIT_SECONDS)  # noqa: ASYNC251 that is the point
    for _ in range(int(LIMIT_SECONDS * 100)):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


# Ways to keep the interpreter busy, most of them without a gap in which another thread could run.


def plain_loop() -> None:
    for _ in range(100_000):
        pass


def long_match() -> None:
    re.match(r"(a+)+$", "a" * 25 + "b")


def large_document() -> None:
    json.loads(json.dumps(list(range(1_500_000))))  # 12 MB


def long_number() -> None:
    sys.set_int_max_str_digits(0)
    str(7**200_000)


def native_sleep() -> None:
    ctypes.PyDLL(None).usleep(500_000)


BUSY: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (plain_loop, long_match, large_document, long_number, native_sleep)
}


@executor("busy", payload=How, timeout_seconds=120)
def busy(payload: How, context: Context) -> str:
    """Keeps the interpreter busy as `how` says for at least `number` milliseconds."""
    end = time.monotonic() + payload.number / 1000
    while time.monotonic() < end:
        BUSY[payload.how]()
    return "done"


# Children.

SLEEPER = "import time; time.sleep(120)"


def start_children(folder: Path) -> None:
    """A child, one in a session of its own with nothing inherited, a forked copy of ourselves, and a daemon forked twice;
    their pids are files in `folder`."""
    pids = [subprocess.Popen([sys.executable, "-c", SLEEPER]).pid]
    pids.append(subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True, env={}).pid)
    reading, writing = os.pipe()
    for times in (1, 2):
        child = os.fork()
        if child == 0:
            os.setsid()
            if times == 2 and os.fork():
                os._exit(0)
            os.write(writing, struct.pack("i", os.getpid()))
            os.closerange(0, 256)
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            time.sleep(120)
            os._exit(0)
        pids.append(struct.unpack("i", os.read(reading, 4))[0])
        if times == 2:
            os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    for pid in (os.getpid(), *pids):
        (folder / f"pid-{pid}").touch()
    (folder / "started").touch()


@executor("have_children", payload=How, max_attempts=1, timeout_seconds=60)
def have_children(payload: How, context: Context) -> None:
    """Starts children, then dies, waits, or returns."""
    start_children(Path(payload.folder))
    if payload.how == "die":
        segfault()
    if payload.how == "wait":
        swallow_everything()


# Memory and identity.


@executor("hoard", payload=How, max_attempts=2, retry=AT_ONCE)
def hoard(payload: How, context: Context) -> str:
    """Takes memory in small pieces, up to `number` MiB. `how` "keep": for ever, "sit": for a second, "once": only the
    first time."""
    mine: list[bytearray] = []
    if payload.how != "once" or context.attempt == 1:
        mine.extend(bytearray(b"x" * 2**16) for _ in range(payload.number * 16))
    if payload.how == "keep":
        HOARD.extend(mine)
    if payload.how == "sit":
        time.sleep(1)
    return f"attempt {context.attempt}"


@executor("who", payload=How)
def who(payload: How, context: Context) -> dict[str, Any]:
    """Which process runs this, and in which surroundings."""
    print(f"hello from {payload.number}")  # noqa: T201
    signals = [signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)]
    return {"pid": os.getpid(), "folder": os.getcwd(), "default_signals": any(signals)}


@executor("who_shared", payload=How)
async def who_shared(payload: How, context: Context) -> int:
    for part in range(3):
        print(f"part {part} of {payload.number}")  # noqa: T201
        await asyncio.sleep(0.01)
    await asyncio.to_thread(print, f"thread of {payload.number}")
    return os.getpid()


@executor("last_words", payload=How, max_attempts=1)
def last_words(payload: How, context: Context) -> None:
    print("these are my last words")  # noqa: T201
    sys.stderr.write("unfinished ")
    os.write(2, b"native words\n")
    segfault()


@executor("log_fields", payload=How)
def log_fields(payload: How, context: Context) -> None:
    context.log(
        "fields",
        number=1,
        ratio=0.5,
        yes=True,
        none=None,
        list=[1, "a"],
        long="x" * 5000,
        object=object,
        nan=math.nan,
        task=99,
        event="mine",
        exc_info=True,
        _record=1,
    )
