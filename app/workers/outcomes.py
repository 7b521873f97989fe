"""How an attempt ended, from what its runner reported and from why it was told to stop."""

from collections.abc import Sequence
from typing import Any

from app.core.lifecycle import Cancelled, Completed, Errored, Outcome, Released, Snoozed, TimedOut
from app.core.task import JsonText
from app.workers.process import Given

TIME_LIMIT = "the time limit is up"
CANCEL = "the task was cancelled"
LEASE_LOST = "the lease was lost"
NOT_RENEWED = "the lease could not be renewed"
SHUTDOWN = "the worker is stopping"


def reported(given: Given, words: Sequence[Any]) -> Outcome | None:
    """The outcome a runner reported. Completion wins over a stop; any other end after a stop is the stop's."""
    word, *details = words
    if word == "completed":
        return Completed(JsonText(details[0]))
    if given.stop_reason is not None:
        return outcome_of_stop(given)
    match word:
        case "snoozed":
            return Snoozed(*details)
        case "cancelled":
            return Cancelled(*details)
        case "error":
            return Errored(*details)
        case _:
            return Errored("ProtocolError", f"the runner reported {word!r}")


def outcome_of_stop(given: Given) -> Outcome | None:
    if given.stop_reason == TIME_LIMIT:
        return TimedOut(given.task.timeout_seconds)
    if given.stop_reason == CANCEL:
        return Cancelled("cancelled on request")
    if given.stop_reason == NOT_RENEWED:
        return Released(NOT_RENEWED)
    if given.stop_reason == SHUTDOWN:
        return Released("the worker stopped")
    return None
