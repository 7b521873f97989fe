"""Executors for the chaos tests: they leave traces, wait, stumble, and make of JSON what JSON has no word for.

Loaded with CHAOS_FREEZE=FILE, a process that begins to write to the database while FILE is there stops itself, with the
write lock in its hand.
"""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.services.executors import Context, Retry, executor


class Traced(BaseModel):
    """`file` gets the lines; the work computes for about `milliseconds`."""

    file: str
    number: int
    milliseconds: float = 0


class Saved(BaseModel):
    """A file of `size` bytes is saved."""

    size: int


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


@executor("saved", payload=Saved, max_attempts=50)
def saved(payload: Saved, context: Context) -> str:
    """Save a file; its id."""
    return context.save_file(os.urandom(payload.size), "saved.bin").id


def _freeze_in_a_write(flag: Path) -> None:
    from app.models.sqlite import PatientCursor

    begin = PatientCursor.begin

    def begin_and_freeze(self: PatientCursor, deadline: float) -> None:
        begin(self, deadline)
        if flag.exists():
            flag.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    PatientCursor.begin = begin_and_freeze  # type: ignore[method-assign]


if "CHAOS_FREEZE" in os.environ:
    _freeze_in_a_write(Path(os.environ["CHAOS_FREEZE"]))


class Nothing(BaseModel):
    pass


@executor("stumbles", payload=Nothing, max_attempts=5)
def stumbles(payload: Nothing, context: Context) -> int:
    """Fails the first time. Which attempt it was."""
    if context.attempt == 1:
        raise ValueError("the first time never works")
    return context.attempt


class Mirrored(BaseModel):
    value: Any


@executor("mirror", payload=Mirrored, max_attempts=2)
def mirror(payload: Mirrored, context: Context) -> dict[str, Any]:
    """Keeps its value in a checkpoint; says and returns it, with what the checkpoint has, the second time."""
    if context.attempt == 1:
        context.checkpoint(payload.value)
        raise Retry(0)
    context.progress(50, "half way", payload.value)
    return {"value": payload.value, "kept": context.checkpoints}


class Recipe(BaseModel):
    """How to make a value, for `where`: result, progress, checkpoint or error."""

    where: str
    value: Any


def cooked(recipe: Any) -> Any:
    """JSON stands for itself; {"~": word, ...} for what JSON has no word for."""
    if isinstance(recipe, list):
        return [cooked(one) for one in recipe]
    if not isinstance(recipe, dict):
        return recipe
    match recipe.get("~"):
        case None:
            return {key: cooked(value) for key, value in recipe.items()}
        case "text":
            return "".join(map(chr, recipe["points"]))
        case "float":
            return float(recipe["name"])
        case "integer":
            return int(recipe["sign"]) * (2 ** int(recipe["power"]))
        case "long":
            return "x" * recipe["length"]
        case "deep":
            value: Any = cooked(recipe["inside"])
            for _ in range(recipe["levels"]):
                value = [value]
            return value
        case "cycle":
            value = {"inside": cooked(recipe["inside"])}
            value["me"] = [value]
            return value
        case "set":
            return {1, "a"}
        case "bytes":
            return b"bytes"
        case "key":
            return {(1, 2): cooked(recipe["inside"])}
        case "same keys":
            return {1: cooked(recipe["inside"]), "1": None}
        case "moment":
            return datetime.now(UTC)
        case "object":
            return object()
    raise AssertionError(recipe)


@executor("cook", payload=Recipe, max_attempts=1)
def cook(payload: Recipe, context: Context) -> Any:
    """Makes what the recipe says, and hands it in where it says."""
    value = cooked(payload.value)
    match payload.where:
        case "result":
            return value
        case "progress":
            context.progress(1, None, value)
        case "checkpoint":
            context.checkpoint(value)
        case "error":
            raise ValueError(value)
    return None
