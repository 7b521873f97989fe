"""What a batch stores on its way, so that an attempt after a crash goes on where it was.

A checkpoint is {"results": "...lines..."} while that is little, {"results_file_id": "..."} otherwise: neither the
database nor a claim grows with the batch.
"""

import contextlib
import io
import time
from typing import IO, Any

from app.services.executors import Context, Fail
from app.workers.batch.results import Results

MOST_ITEMS = 500
MOST_BYTES = 512 * 1024
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 10.0
SHARE = 0.01
"""A crash costs at most this share of the time so far, within the two bounds: a day has 9,000 checkpoints, not 86,400."""
INLINE_BYTES = 16 * 1024
INLINE_TOTAL_BYTES = 2**20


class Checkpoints:
    """Stores results as they come in, each once."""

    def __init__(self, context: Context, results: Results) -> None:
        self._context = context
        self._results = results
        self._stored_items = 0
        self._stored_bytes = 0
        self._inline_bytes = 0
        self._began = self._stored_at = time.monotonic()

    def restore(self) -> int:
        """Take in what earlier attempts stored; how many items have ended."""
        for data in self._context.checkpoints:
            with contextlib.suppress(Fail), self._lines(data) as lines:  # without the file those items run again
                self._results.restore(lines)
        self._context.checkpoints.clear()
        self._note()
        return self._results.ended

    def due(self) -> bool:
        """True when enough has come in, or some of it has waited long enough."""
        items = self._results.ended - self._stored_items
        if not items:
            return False
        if items >= MOST_ITEMS or self._results.size - self._stored_bytes >= MOST_BYTES:
            return True
        now = time.monotonic()
        return now - self._stored_at >= min(max(SHORTEST_SECONDS, SHARE * (now - self._began)), LONGEST_SECONDS)

    async def store(self) -> None:
        """Store what has come in since the last time. Returns when it is on disk."""
        size = self._results.size - self._stored_bytes
        with self._results.since(self._stored_bytes) as lines:
            self._note()
            if self._is_little(size):
                self._inline_bytes += size
                data: dict[str, Any] = {"results": lines.read().decode()}
            else:
                file = await self._context.save_file_async(
                    lines, "results-part.jsonl", "application/jsonl", temporary=True
                )
                data = {"results_file_id": file.id}
        await self._context.checkpoint_async(data)

    def _is_little(self, size: int) -> bool:
        # In JSON again, each quote becomes two bytes.
        fits = 2 * size + 100 <= self._context.setup.max_result_bytes
        return fits and size <= INLINE_BYTES and self._inline_bytes + size <= INLINE_TOTAL_BYTES

    def _note(self) -> None:
        self._stored_items, self._stored_bytes = self._results.ended, self._results.size
        self._stored_at = time.monotonic()

    def _lines(self, data: dict[str, Any]) -> IO[bytes]:
        if "results" in data:
            return io.BytesIO(data["results"].encode())
        return self._context.open_file(data["results_file_id"])
