"""The task service in Python, over its HTTP interface: `Client` for calls that block, `AsyncClient` for asyncio.

It needs httpx and pydantic alone and knows nothing of the service's own code. The names are gathered here, unlike in the
packages of the service, because this one is used from other people's programs.
"""

from taskclient.client import AsyncClient, AsyncTaskHandle, Client, TaskHandle
from taskclient.errors import (
    ClientError,
    Conflict,
    InvalidRequest,
    NoAnswer,
    NotAllowed,
    NotCompleted,
    NotFound,
    Problem,
    StillRunning,
    TaskCancelled,
    TaskFailed,
    Unavailable,
    UnexpectedAnswer,
)
from taskclient.models import Task

__all__ = [
    "AsyncClient",
    "AsyncTaskHandle",
    "Client",
    "ClientError",
    "Conflict",
    "InvalidRequest",
    "NoAnswer",
    "NotAllowed",
    "NotCompleted",
    "NotFound",
    "Problem",
    "StillRunning",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskHandle",
    "Unavailable",
    "UnexpectedAnswer",
]
