"""What a worker and its runners say to each other: one JSON object a frame, a 4-byte big-endian length before it.

Worker to runner, each key optional:
    start     a RunnerSetup
    run       [[id, lease, task_type, payload, attempt, timeout_seconds, [checkpoint, ...]], ...]   payload is JSON text
    stop      [[id, lease, reason], ...]      these attempts must end
    recall    true                            give back what has not started
    stored    [[number, true], ...]           checkpoints and files that are on disk (or false: the lease is lost)
Runner to worker:
    ready     true                            executors are loaded
    broken    "why they cannot be loaded"
    running   [[id, lease, seconds_ago], ...] attempts that have begun
    done      [[id, lease, run_seconds, outcome, ...], ...]   see `runner.py` for what follows each outcome
    memory    bytes in use, beside every `done`
    returned  [[id, lease], ...]              recalled, never begun
    progress  [[id, lease, progress], ...]    the newest of each, as JSON text
    log       [[id, lease, message, fields], ...]   fields are short JSON values by name
    checkpoint [[number, id, lease, data], ...]
    file      [[number, id, lease, file, temporary], ...]     written files that belong to the attempt's task from now on
"""

import struct
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson

from app.core.file import StoredFile

_LENGTH = struct.Struct(">I")
LARGEST_FRAME_BYTES = 256 * 2**20


def encode(message: dict[str, Any]) -> bytes:
    """One frame."""
    body = orjson.dumps(message)
    return _LENGTH.pack(len(body)) + body


def file_to_wire(file: StoredFile) -> dict[str, Any]:
    """A file as it goes over the wire."""
    return asdict(file) | {"created_at": file.created_at.isoformat()}


def file_from_wire(fields: dict[str, Any]) -> StoredFile:
    """A file as it came over the wire."""
    return StoredFile(**fields | {"created_at": datetime.fromisoformat(fields["created_at"])})


class FrameBuffer:
    """Turns whatever chunks a socket gives into whole messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The messages that are complete with `chunk`. Raises ValueError for what is no frame of ours."""
        self._bytes += chunk
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > LARGEST_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                break
            messages.append(orjson.loads(memoryview(self._bytes)[_LENGTH.size : end]))
            del self._bytes[:end]
        return messages
