"""Executors for the tests of batches: items that end in every way, and that leave a line where they ran."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.core.retry import RetryPolicy
from app.services.executors import Cancel, Context, Fail, FileId, Retry, Snooze, executor


class Deed(BaseModel):
    """`do` says how to end; `journal` is a file to which each run appends a line with `name`, `marker` one that the first
    run makes."""

    model_config = ConfigDict(strict=True, extra="forbid")

    do: str = "echo"
    name: int = 0
    journal: str | None = None
    marker: str | None = None
    seconds: float = 0
    file: FileId | None = None


AT_ONCE = RetryPolicy(base_seconds=0.01, ceiling_seconds=0.02)


def note(payload: Deed, context: Context) -> None:
    """Append a line, whole even when many processes do."""
    if payload.journal:
        with open(payload.journal, "ab", buffering=0) as journal:
            journal.write(f"{payload.name} {os.getpid()} {context.task_id} {context.attempt}\n".encode())


def first_time(payload: Deed) -> bool:
    assert payload.marker is not None
    if Path(payload.marker).exists():
        return False
    Path(payload.marker).touch()
    return True


@executor("deed", payload=Deed, timeout_seconds=30, retry=AT_ONCE)
def deed(payload: Deed, context: Context) -> Any:
    """Do what the payload says."""
    note(payload, context)
    match payload.do:
        case "echo":
            return payload.name
        case "sleep":
            time.sleep(payload.seconds)
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "die_once":
            if first_time(payload):
                os._exit(7)
        case "touch":
            Path(str(payload.marker)).touch()
        case "wait_for_marker":
            while not Path(str(payload.marker)).exists():
                time.sleep(0.01)
        case "raise":
            raise ValueError("no good")
        case "raise_once":
            if context.attempt == 1:
                raise ValueError("not yet")
        case "retry":
            raise Retry(0.01, "later")
        case "fail":
            raise Fail("no use")
        case "snooze":
            raise Snooze(1, "tired")
        case "cancel":
            raise Cancel("not wanted")
        case "exit":
            sys.exit(3)
        case "set":
            return {1, 2}
        case "huge":
            return "x" * (2 << 20)
        case "large":
            return "x" * 10_000
        case "big_integer":
            return 10**30
        case "flood":
            for number in range(20_000):
                print("x" * 1000, number)  # noqa: T201
        case "log":
            context.log("said", number=payload.name, item="mine")
        case "checkpoint":
            context.checkpoint({"step": 1})
            return context.checkpoints
        case "save":
            return context.save_file(b"saved", "saved.txt", "text/plain").id
        case "progress":
            context.progress(50, "half way")
        case _:
            raise AssertionError(payload.do)
    return payload.name


async def count_running(payload: Deed) -> int:
    """How many items run in processes that are alive."""
    mine = Path(f"{payload.marker}-{payload.name}")
    mine.write_text(f"{os.getpid()} ")
    await asyncio.sleep(payload.seconds)
    running = 0
    for path in mine.parent.glob(f"{mine.name.partition('-')[0]}-*"):
        with contextlib.suppress(OSError, ValueError):  # ended while we look, or only beginning
            os.kill(int(path.read_text()), 0)
            running += 1
    mine.unlink()
    return running


@executor("deed_shared", payload=Deed, timeout_seconds=30, retry=AT_ONCE)
async def deed_shared(payload: Deed, context: Context) -> Any:
    """`deed` for the ways in which sharing a process matters."""
    note(payload, context)
    match payload.do:
        case "sleep":
            await asyncio.sleep(payload.seconds)
        case "die":
            await asyncio.sleep(payload.seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise ValueError("no good")
        case "count":
            return await count_running(payload)
        case "save":
            return (await context.save_file_async(b"saved", "saved.txt", "text/plain")).id
    return payload.name


@executor("deed_hang", payload=Deed, timeout_seconds=0.3)
def deed_hang(payload: Deed, context: Context) -> int:
    """`hang` never ends and never listens; `sleep` waits, and hears a stop."""
    note(payload, context)
    if payload.do == "hang":
        10 ** (10**9)  # holds the interpreter: not even another thread of this process runs
    while payload.do == "sleep":
        context.progress(1)
        time.sleep(0.01)
    return payload.name


@executor("deed_hang_shared", payload=Deed, timeout_seconds=0.5)
async def deed_hang_shared(payload: Deed, context: Context) -> int:
    """`hang` blocks the loop; `sleep` waits in it."""
    note(payload, context)
    if payload.do == "hang":
        time.sleep(1000)  # noqa: ASYNC251 that is the point
    await asyncio.sleep(payload.seconds)
    return payload.name
