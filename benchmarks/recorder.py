"""The task that does nothing, the same for this project and for every peer: it notes that it ran, and when, and returns a small
result. Nothing but the standard library, since it runs in the peers' own environments too.
"""

import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

ENTRY = struct.Struct("<qqq")
_files: dict[str, int] = {}


def record(number: int) -> dict[str, int]:
    """Append the number, the monotonic clock and the worker's number to the file BENCH_RECORD, which all of them share."""
    path = os.environ["BENCH_RECORD"]
    if path not in _files:
        _files[path] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(_files[path], ENTRY.pack(number, time.monotonic_ns(), int(os.environ.get("BENCH_WORKER", "0"))))
    return {"number": number}


class Run(NamedTuple):
    """One run of the task: `at` in nanoseconds of the monotonic clock."""

    number: int
    at: int
    worker: int


def recorded(path: Path) -> list[Run]:
    """Every run so far, in the order of writing."""
    data = path.read_bytes() if path.exists() else b""
    return [Run(*entry) for entry in ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size])]
