"""Who works: a worker process signs in with an id that is new at each start, beats while it lives, and signs out."""

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace

from app.core.task import JsonText
from app.models import workers as rows
from app.models.database import Database
from app.models.workers import WorkerRow


class WorkerBook:
    """The list of workers in the store. Telling who is there, never who may do what: that is the lease."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock()

    async def sign_in(self, name: str, queues: Sequence[str], task_types: Sequence[str], slots: int) -> WorkerRow:
        """Enter this process. Its id is random: an id that survives a restart lets a dead worker's tasks hide behind
        the live one (procrastinate #1518, oban #862)."""
        now = self._clock()
        worker = WorkerRow(
            id=f"{name}-{secrets.token_hex(4)}",
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=tuple(queues),
            task_types=tuple(task_types),
            slots=slots,
            running=JsonText("[]"),
            state="running",
            started_at=now,
            beat_at=now,
        )
        async with self._database.write(durable=False) as connection:
            await rows.save(connection, worker)
        return worker

    async def beat(self, worker: WorkerRow, state: str, running: JsonText) -> None:
        """Say that the worker lives and what it runs. Makes the row again if somebody forgot it meanwhile."""
        async with self._database.write(durable=False) as connection:
            await rows.save(connection, replace(worker, state=state, running=running, beat_at=self._clock()))

    async def sign_out(self, worker: WorkerRow) -> None:
        """Remove this process's row."""
        async with self._database.write(durable=False) as connection:
            await rows.remove(connection, worker.id)
