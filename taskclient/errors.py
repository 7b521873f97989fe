"""Every error of the client, in one tree.

ClientError
├── NoAnswer             no whole answer came in time; `unsure` says whether the service may have done it all the same
├── UnexpectedAnswer     something answered, but not as this service does
├── Problem              the service said no, with a problem document (RFC 9457)
│   ├── InvalidRequest   the request does not fit (400, 413, 415, 422); `errors` names each fault
│   ├── NotAllowed       the API key is missing, wrong, or may not do this (401, 403)
│   ├── NotFound         there is no such thing (404)
│   ├── Conflict         the present state forbids it (409)
│   └── Unavailable      not now (429, 5xx)
└── NotCompleted         the task has no result; `task` is the task
    ├── TaskFailed       `error` and `failure_reason` say why
    ├── TaskCancelled
    └── StillRunning     it has not ended in the time it was given; also a TimeoutError
"""

from collections.abc import Mapping
from typing import Any

from taskclient.models import Task, TaskError


class ClientError(Exception):
    """Root of the tree; its text is fit for a user to read."""


class NoAnswer(ClientError):
    """The service did not answer, however often it was asked. `unsure`: the request may have arrived and been carried out."""

    def __init__(self, message: str, *, unsure: bool) -> None:
        super().__init__(message)
        self.unsure = unsure


class UnexpectedAnswer(ClientError):
    """What came back is not an answer of this service: a wrong address, a proxy's page, a file that changed on the way."""


class Problem(ClientError):
    """The service said no. `document` is the whole problem; `type` is the last part of its URN, which does not change."""

    def __init__(self, document: Mapping[str, Any], status: int, retry_after: float | None = None) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or f"The service answered {status}."))
        self.document = document
        self.status = status
        self.retry_after = retry_after
        """Seconds after which the service asks to be tried again, None where it said nothing."""

    @property
    def type(self) -> str:
        return str(self.document.get("type", "")).rsplit(":", 1)[-1]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Each fault of the request: `location`, `message`, `type`."""
        return list(self.document.get("errors") or ())


class InvalidRequest(Problem):
    """The request does not fit; nothing was stored."""


class NotAllowed(Problem):
    """The API key is missing, wrong, or may not do this."""


class NotFound(Problem):
    """There is no such thing."""


class Conflict(Problem):
    """The present state forbids it. `document` has `task_status`, or the `holder_id` of a unique key."""


class Unavailable(Problem):
    """The service cannot do it now; it was asked again as long as there was time."""


def problem_for(status: int) -> type[Problem]:
    """Which class stands for a status."""
    known = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict, 429: Unavailable}
    if status in known:
        return known[status]
    return Unavailable if status >= 500 else InvalidRequest


class NotCompleted(ClientError):
    """A result was asked for, and there is none."""

    def __init__(self, message: str, task: Task) -> None:
        super().__init__(message)
        self.task = task


class TaskFailed(NotCompleted):
    """The task was given up."""

    def __init__(self, task: Task) -> None:
        why = f": {task.error.type}: {task.error.message}" if task.error else ""
        super().__init__(f"Task {task.id} failed ({task.failure_reason}){why}", task)

    @property
    def error(self) -> TaskError | None:
        """What its last attempt raised."""
        return self.task.error

    @property
    def failure_reason(self) -> str | None:
        return self.task.failure_reason


class TaskCancelled(NotCompleted):
    """The task was cancelled."""

    def __init__(self, task: Task) -> None:
        super().__init__(f"Task {task.id} was cancelled.", task)


class StillRunning(NotCompleted, TimeoutError):
    """The task has not ended yet. It goes on; wait for it again, or cancel it."""

    def __init__(self, task: Task, seconds: float) -> None:
        super().__init__(f"Task {task.id} is still {task.status} after {seconds:g} s.", task)
