"""Run as a program: one of many processes that write to, or read from, one database as fast as they can.

python -m tests.chaos.crowd DATABASE write|read SECONDS

Says that it is ready, waits for a line, and prints one JSON object: the ids it was given, how long each call took in ms,
and what went wrong.
"""

import asyncio
import json
import sys
import time

from app.core.errors import StoreUnavailable
from app.core.events import EventBus
from app.core.task import JsonText, NewTask
from app.models.database import Database
from app.models.tasks import TaskFilter
from app.services.limits import QueueLimits
from app.services.quota import Quota
from app.services.tallies import Tallies
from app.services.tasks import TaskService


async def write(tasks: TaskService, number: int) -> list[int]:
    payload = JsonText(json.dumps({"number": number, "text": "x" * (number % 900)}))
    return [(await tasks.submit(NewTask("echo", payload, "default", 0, 3, 30.0))).task.id]


async def read(tasks: TaskService, number: int) -> list[int]:
    await tasks.search(TaskFilter(), 50 if number % 5 else 500, whole_rows=True)
    return []


async def main(url: str, verb: str, seconds: float) -> None:
    act = write if verb == "write" else read
    ids: list[int] = []
    times: list[float] = []
    errors: list[str] = []
    database = Database(url)
    await database.open()
    bus = EventBus()
    tasks = TaskService(database, bus, QueueLimits(database, bus, Tallies(database, bus, 60.0)), 60.0, Quota(0))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        began = time.monotonic()
        try:
            ids += await act(tasks, len(times))
        except StoreUnavailable as error:
            errors.append(str(error))
        times.append(1000 * (time.monotonic() - began))
    await database.close()
    print(json.dumps({"ids": ids, "times": times, "errors": errors}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
