"""The `batch_processing` task type: one task that applies another task type to many items."""

import asyncio
from typing import Any

from app.services.executors import Context, executor
from app.services.registry import load_executors
from app.workers.batch.payload import TASK_TYPE, BatchProcessing

A_DAY_SECONDS = 86_400
"""A batch may take long: its items have limits of their own."""


@executor(
    TASK_TYPE,
    payload=BatchProcessing,
    timeout_seconds=A_DAY_SECONDS,
    example={"items": ["I love it.", {"text": "Never again.", "operations": ["sentiment"]}], "concurrency": 2},
)
def process_batch(payload: BatchProcessing, context: Context) -> dict[str, Any]:
    """Apply a task type to many items, several at a time, each in a process that may die without harm to the others.

    The result has the counts and every item's outcome in order: in place, or in a JSON Lines file where they are many.
    After a crash the batch goes on behind the last stored results. Items run at least once.
    """
    # Imported here, in the runner: API and worker parent import this module for the payload model alone.
    from app.workers.batch.run import Batch

    executors = load_executors(context.setup.modules)
    # A plain executor has the main thread of its runner, and only processes started there die with the runner.
    return asyncio.run(Batch(payload, context, executors).run())
