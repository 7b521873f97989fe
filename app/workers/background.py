"""`Background`: work that goes on beside, and is held on to meanwhile, as asyncio itself does not."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Tasks that were started and have not ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done from now on."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Have all of it end."""
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Return when all that was started has ended, well or not."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
