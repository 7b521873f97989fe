"""Executors for the tests: each ends in its own way."""

import asyncio
import contextlib
import io
import logging
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from app.core.retry import RetryPolicy
from app.services.executors import Cancel, Context, Fail, FileId, Retry, Snooze, executor


class Number(BaseModel, strict=True):
    number: int = 0


class Marked(BaseModel, strict=True):
    """`folder` is where an executor leaves files, so that a test can see what it did."""

    folder: str
    seconds: float = 0


class Anything(BaseModel, strict=True):
    what: str


class BrokenModel(BaseModel):
    """Its validator has a bug."""

    what: str

    @field_validator("what")
    @classmethod
    def look_up(cls, what: str) -> str:
        known: dict[str, str] = {}
        return known[what]


AT_ONCE = RetryPolicy(base_seconds=0.01, ceiling_seconds=0.02)


@executor("echo", payload=Number, example={"number": 1})
def echo(payload: Number, context: Context) -> dict[str, int]:
    """Give the number back."""
    return {"number": payload.number}


@executor("broken_model", payload=BrokenModel)
def broken_model(payload: BrokenModel, context: Context) -> None:
    """Never runs: its payload cannot be checked."""


@executor("echo_shared", payload=Number)
async def echo_shared(payload: Number, context: Context) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"number": payload.number}


@executor("raise_error", payload=Number, max_attempts=2, retry=AT_ONCE)
def raise_error(payload: Number, context: Context) -> None:
    raise ValueError(f"number {payload.number} is no good")


@executor("second_time", payload=Marked, retry=AT_ONCE)
def second_time(payload: Marked, context: Context) -> dict[str, int]:
    if context.attempt == 1:
        raise RuntimeError("not yet")
    return {"attempt": context.attempt}


@executor("signal_raised", payload=Anything, max_attempts=2, retry=AT_ONCE)
def signal_raised(payload: Anything, context: Context) -> Any:
    """Raises, or returns, what the payload names."""
    match payload.what:
        case "retry":
            if context.attempt == 1:
                raise Retry(0.01)
            return "retried"
        case "retry_nonsense":
            raise Retry("soon")  # type: ignore[arg-type]
        case "validation_error":
            Number.model_validate({"number": "not one"})
        case "snooze":
            # A snooze is not charged, so the attempt number stays; the file remembers.
            raise Snooze(timedelta(hours=1))
        case "fail":
            raise Fail("no use")
        case "cancel":
            raise Cancel("not wanted")
        case "exit":
            sys.exit(3)
        case "nan":
            return float("nan")
        case "set":
            return {1, 2}
        case "bytes":
            return b"x"
        case "nul":
            return "a\x00b"
        case "surrogate":
            return "\ud800"
        case "cycle":
            cycle: list[Any] = []
            cycle.append(cycle)
            return cycle
        case "huge":
            return "x" * (2 << 20)
        case "unprintable":

            class Unprintable(Exception):
                def __str__(self) -> str:
                    raise RuntimeError("no text")

            raise Unprintable
    raise AssertionError(payload.what)


@executor("die", payload=Number, max_attempts=5, retry=AT_ONCE)
def die(payload: Number, context: Context) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@executor("die_shared", payload=Number, max_attempts=5, retry=AT_ONCE)
async def die_shared(payload: Number, context: Context) -> None:
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


@executor("spin", payload=Number, timeout_seconds=0.3, max_attempts=1)
def spin(payload: Number, context: Context) -> None:
    """Never ends and never listens."""
    while True:
        pass


@executor("listen_to_context", payload=Marked, timeout_seconds=30, max_attempts=1)
def listen_to_context(payload: Marked, context: Context) -> None:
    """Runs until a call on the context raises."""
    (Path(payload.folder) / f"began-{context.task_id}-{context.attempt}").touch()
    for _ in range(3000):
        context.progress(1.0, "still here")
        time.sleep(0.01)


@executor("wait_shared", payload=Marked, timeout_seconds=30)
async def wait_shared(payload: Marked, context: Context) -> str:
    """Waits without holding the loop; a stop cancels it at once."""
    (Path(payload.folder) / f"began-{context.task_id}-{context.attempt}").touch()
    await asyncio.sleep(payload.seconds)
    return "waited"


@executor("wait_plain", payload=Marked, timeout_seconds=30)
def wait_plain(payload: Marked, context: Context) -> str:
    """Runs until the file `go` appears or the seconds are over."""
    (Path(payload.folder) / f"began-{context.task_id}-{context.attempt}").touch()
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end and not (Path(payload.folder) / "go").exists():
        time.sleep(0.005)
    return "waited"


@executor("checkpointed", payload=Marked, retry=AT_ONCE)
def checkpointed(payload: Marked, context: Context) -> dict[str, Any]:
    """Stores two checkpoints, dies, and goes on from them."""
    if not context.checkpoints:
        context.checkpoint({"step": 1})
        context.checkpoint({"step": 2})
        os._exit(1)
    return {"found": context.checkpoints, "attempt": context.attempt}


@executor("checkpointed_shared", payload=Number, retry=AT_ONCE)
async def checkpointed_shared(payload: Number, context: Context) -> dict[str, Any]:
    if not context.checkpoints:
        await context.checkpoint_async([1])
        raise RuntimeError("again")
    return {"found": context.checkpoints}


@executor("impatient_checkpoint", payload=Number)
async def impatient_checkpoint(payload: Number, context: Context) -> str:
    """Does not wait for its checkpoint."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(context.checkpoint_async(1), 1e-6)
    await asyncio.sleep(0.2)
    return "went on"


@executor("log_flood", payload=Marked)
def log_flood(payload: Marked, context: Context) -> None:
    """Logs as fast as it can."""
    (Path(payload.folder) / f"began-{context.task_id}-{context.attempt}").touch()
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end:
        context.log("flood", text="x" * 100)


@executor("chatter", payload=Number)
def chatter(payload: Number, context: Context) -> str:
    """Prints, logs and reports."""
    print("printed by user code")  # noqa: T201
    context.log("logged by user code", number=payload.number)
    context.progress(42, "chattering", {"number": payload.number})
    return "said"


def _say_all(number: int, context: Context) -> None:
    for place in range(number):
        print("line", place)  # noqa: T201
    secret = os.environ["SECRET_CRM"]
    print(f"printed {secret}")  # noqa: T201
    logging.getLogger("shop").warning("warned %s", secret)
    context.log(f"logged {secret}", key=secret)
    print("no end of line", end="")  # noqa: T201


@executor("say_all", payload=Number)
def say_all(payload: Number, context: Context) -> None:
    """Says many lines, and then one by each way."""
    _say_all(payload.number, context)


@executor("say_all_shared", payload=Number)
async def say_all_shared(payload: Number, context: Context) -> None:
    """The same, beside others."""
    _say_all(payload.number, context)


@executor("say_and_die", payload=Number)
def say_and_die(payload: Number, context: Context) -> None:
    """Prints, and is gone."""
    print("these are my last words")  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)


@executor("tell_trace", payload=Number)
def tell_trace(payload: Number, context: Context) -> dict[str, str] | None:
    """Returns the trace it belongs to."""
    return context.trace.headers if context.trace else None


class Copying(BaseModel, strict=True):
    """`file_id` is what to copy; `then` what to do afterwards."""

    file_id: FileId | None = None
    then: str = "return"


@executor("copy_file", payload=Copying)
def copy_file(payload: Copying, context: Context) -> dict[str, Any]:
    """Saves a copy, and a temporary one, then ends in some way."""
    data = b"made up"
    if payload.file_id is not None:
        with context.open_file(payload.file_id) as stream:
            data = stream.read()
    kept = context.save_file(data, "../copy of.txt", "text/plain")
    temporary = context.save_file(data, "temporary", temporary=True)
    context.checkpoint({"temporary": temporary.id})
    if payload.then == "fail":
        raise Fail("on purpose")
    if payload.then == "large":
        context.save_file(b"x" * 2000, "large")
    return {"file_id": kept.id, "size": kept.size, "sha256": kept.sha256, "temporary": temporary.id}


@executor("copy_file_shared", payload=Copying)
async def copy_file_shared(payload: Copying, context: Context) -> dict[str, Any]:
    kept = await context.save_file_async(io.BytesIO(b"shared"), "shared.bin")
    return {"file_id": kept.id, "size": kept.size}


@executor("save_stubbornly", payload=Copying, max_attempts=1000, retry=AT_ONCE, fail_on=[Exception])
def save_stubbornly(payload: Copying, context: Context) -> str:
    """By its own rules no failure is worth another attempt."""
    return context.save_file(b"saved", "saved.bin").id


@executor("report_once", payload=Marked)
def report_once(payload: Marked, context: Context) -> None:
    """Says once how far it is, and ends when the file `go` is there."""
    context.progress(50, "half")
    while not (Path(payload.folder) / "go").exists():
        time.sleep(0.01)
