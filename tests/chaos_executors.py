"""Executors for the chaos tests: they leave a line for each beginning and each end in a file, in one write each."""

import os
import time
from pathlib import Path

from pydantic import BaseModel

from app.services.executors import Context, executor


class Traced(BaseModel):
    """`file` gets the lines; the work computes for about `milliseconds`."""

    file: str
    number: int
    milliseconds: float = 0


class Held(BaseModel):
    """The first attempt ends when `gate` is there; later ones at once."""

    gate: str


def _line(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"{text}\n".encode())
    finally:
        os.close(handle)


@executor("traced", payload=Traced, max_attempts=50)
def traced(payload: Traced, context: Context) -> int:
    """Compute for a while, and leave a trace of it."""
    _line(payload.file, f"start {context.task_id}")
    until = time.process_time() + payload.milliseconds / 1000
    number = payload.number
    while time.process_time() < until:
        number = (number * 6364136223846793005 + 1442695040888963407) % 2**64
    _line(payload.file, f"end {context.task_id}")
    return payload.number


@executor("held", payload=Held, max_attempts=5)
def held(payload: Held, context: Context) -> int:
    """Which attempt it was."""
    while context.attempt == 1 and not Path(payload.gate).exists():
        time.sleep(0.01)
    return context.attempt
