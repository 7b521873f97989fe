"""Executors for the benchmarks: as little work as there can be, with a small stored result."""

import time
from typing import Any

from pydantic import BaseModel

from app.services.executors import Context, executor
from benchmarks.recorder import record


class Nothing(BaseModel):
    number: int = 0


@executor("bench.nothing", payload=Nothing)
def nothing(payload: Nothing, context: Context) -> dict[str, Any]:
    """Give the number back."""
    return {"number": payload.number}


@executor("bench.record", payload=Nothing)
def noted(payload: Nothing, context: Context) -> dict[str, int]:
    """Note that it ran, as every peer's task does."""
    return record(payload.number)


@executor("bench.now", payload=Nothing)
def now(payload: Nothing, context: Context) -> dict[str, int]:
    """Say when this code began, in nanoseconds of the wall clock."""
    return {"began_ns": time.time_ns()}
