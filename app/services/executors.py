"""The contract between the service and the code that does the work: `@executor`, `Context`, what may be raised, and the
registry that loads it. It must stay light: API, worker parent and runner all import it."""

import asyncio
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any, NoReturn, Protocol, TypeVar

from pydantic import BaseModel

from app.core.errors import PluginError
from app.core.retry import RetryPolicy

NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
LONGEST_WAIT_SECONDS = 10 * 365 * 86400.0
MARK = "__task_executor__"
Function = TypeVar("Function", bound=Callable[..., Any])


def _seconds(after: float | timedelta) -> float:
    """A wait in seconds. Raises TypeError or ValueError where the executor's author would look for it."""
    seconds = after.total_seconds() if isinstance(after, timedelta) else after
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"after must be seconds or a timedelta, not {after!r}")
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise ValueError(f"after must be from 0 seconds to ten years, not {after!r}")
    return float(seconds)


class Retry(Exception):
    """Raise it to fail this attempt and run again after `after` (seconds, or a timedelta), if attempts are left."""

    def __init__(self, after: float | timedelta, reason: str = "the executor asked for a retry") -> None:
        super().__init__(reason)
        self.after = _seconds(after)


class Snooze(Exception):
    """Raise it to run again after `after` (seconds, or a timedelta) without using up an attempt."""

    def __init__(self, after: float | timedelta, reason: str = "the executor snoozed") -> None:
        super().__init__(reason)
        self.after = _seconds(after)


class Fail(Exception):
    """Raise it when trying again cannot help: the task fails at once with this reason."""


class Cancel(Exception):
    """Raise it to end the task as cancelled."""


class StopRequested(BaseException):
    """Raised by every call on a context whose attempt must end: cancelled, out of time, or its lease is lost.

    It is no `Exception`, so that an `except Exception` in user code does not swallow it (as asyncio.CancelledError).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reports(Protocol):
    """Where a context's calls go: the runner's wire in production, `RecordedReports` in a developer's own tests."""

    def progress(self, percent: float | None, message: str | None, data: Any) -> None: ...

    def log(self, message: str, fields: dict[str, Any]) -> None: ...

    def checkpoint(self, data: Any) -> "Future[bool]":
        """Done with True when stored, with False when the lease is lost."""
        ...


class RecordedReports:
    """Keeps what an executor reports, for unit tests of an executor: `Context(reports=RecordedReports())`."""

    def __init__(self) -> None:
        self.progresses: list[tuple[float | None, str | None, Any]] = []
        self.logs: list[tuple[str, dict[str, Any]]] = []
        self.checkpoints: list[Any] = []

    def progress(self, percent: float | None, message: str | None, data: Any) -> None:
        self.progresses.append((percent, message, data))

    def log(self, message: str, fields: dict[str, Any]) -> None:
        self.logs.append((message, fields))

    def checkpoint(self, data: Any) -> "Future[bool]":
        self.checkpoints.append(data)
        stored: Future[bool] = Future()
        stored.set_result(True)
        return stored


class Context:
    """What an attempt may know and say. Every call raises `StopRequested` once the attempt has been told to end.

    task_id      the task's id
    attempt      number of this attempt, from 1
    deadline     aware UTC moment at which the time limit is up
    checkpoints  what earlier attempts of this task stored, oldest first
    """

    def __init__(
        self,
        *,
        task_id: int = 0,
        attempt: int = 1,
        deadline: datetime | None = None,
        checkpoints: Sequence[Any] = (),
        reports: Reports,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.deadline = deadline
        self.checkpoints = list(checkpoints)
        self._reports = reports
        self._stop_reason: str | None = None

    @property
    def cancelled(self) -> bool:
        """True as soon as the attempt must end, for whatever reason. Reading it never raises."""
        return self._stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """Why the attempt must end, None while it may go on."""
        return self._stop_reason

    def stop(self, reason: str) -> None:
        """For the runner: from now on every call raises. Safe from any thread."""
        self._stop_reason = reason

    def progress(self, percent: float | None = None, message: str | None = None, data: Any = None) -> None:
        """Show how far the work is: `percent` 0 to 100, a short `message`, any JSON `data`. Never waits; the newest wins."""
        self._raise_if_stopped()
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"percent must be from 0 to 100, not {percent!r}")
        self._reports.progress(percent, message, data)

    def log(self, message: str, **fields: Any) -> None:
        """Write a line to the worker's log, marked with the task and the attempt."""
        self._raise_if_stopped()
        self._reports.log(message, fields)

    def checkpoint(self, data: Any) -> None:
        """Store JSON `data` for the next attempt, should this one die. Returns when it is on disk.

        For plain executors. In an `async def` executor it would block the loop: use `checkpoint_async`.
        """
        self._raise_if_stopped()
        self._raise_unless(self._reports.checkpoint(data).result())

    async def checkpoint_async(self, data: Any) -> None:
        """`checkpoint` for `async def` executors."""
        self._raise_if_stopped()
        self._raise_unless(await asyncio.wrap_future(self._reports.checkpoint(data)))

    def _raise_unless(self, stored: bool) -> None:
        if not stored:
            self.stop("the lease was lost")
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop_reason is not None:
            raise StopRequested(self._stop_reason)


@dataclass(frozen=True)
class Executor:
    """One kind of work: which function does it, what it takes, how often and how long it may try.

    None for `max_attempts`, `timeout_seconds` or `retry` means the service's setting.
    """

    task_type: str
    function: Callable[..., Any]
    payload: type[BaseModel]
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    example: Mapping[str, Any] | None = None

    @property
    def shares_runner(self) -> bool:
        """An `async def` executor shares a runner's loop with others; a plain one has a runner to itself."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def description(self) -> str:
        """The function's docstring, cleaned; empty where it has none."""
        return inspect.getdoc(self.function) or ""


def executor(
    task_type: str,
    *,
    payload: type[BaseModel],
    max_attempts: int | None = None,
    timeout_seconds: float | None = None,
    retry: RetryPolicy | None = None,
    example: Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:
    """Mark a function `(payload, context) -> JSON` as the executor of `task_type`. It stays a plain function.

    The payload model is the contract: submissions that do not fit it are refused. The function may be `def` (runs alone
    in its runner) or `async def` (shares one). Raises PluginError, at import, for a name or a limit that makes no sense.
    """
    if not NAME.fullmatch(task_type):
        raise PluginError(f"task_type {task_type!r} must match {NAME.pattern}")
    if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
        raise PluginError(f"executor {task_type!r}: payload must be a pydantic model, not {payload!r}")
    if max_attempts is not None and max_attempts < 1:
        raise PluginError(f"executor {task_type!r}: max_attempts must be at least 1, not {max_attempts}")
    if timeout_seconds is not None and timeout_seconds <= 0:
        raise PluginError(f"executor {task_type!r}: timeout_seconds must be above 0, not {timeout_seconds}")

    def mark(function: Function) -> Function:
        setattr(function, MARK, Executor(task_type, function, payload, max_attempts, timeout_seconds, retry, example))
        return function

    return mark


class ExecutorRegistry(Mapping[str, Executor]):
    """The executors of one process by task_type. Built by `load_executors`, then only read."""

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        self._executors = dict(sorted(executors.items()))

    def __getitem__(self, task_type: str) -> Executor:
        return self._executors[task_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._executors)

    def __len__(self) -> int:
        return len(self._executors)


def load_executors(module_names: Sequence[str]) -> ExecutorRegistry:
    """Import each module and collect what it marks. Raises PluginError with one clear line: which module, and why."""
    found: dict[str, Executor] = {}
    for module_name in module_names:
        module = _import(module_name)
        marked = [
            getattr(member, MARK)
            for member in vars(module).values()
            if getattr(member, "__module__", None) == module.__name__ and hasattr(member, MARK)
        ]
        if not marked:
            raise PluginError(f"Executor module {module_name!r} marks no function with @executor.")
        for one in marked:
            taken = found.get(one.task_type)
            if taken is not None and taken.function is not one.function:
                raise PluginError(
                    f"Executor module {module_name!r}: task_type {one.task_type!r} is already taken"
                    f" by {taken.function.__module__!r}."
                )
            found[one.task_type] = one
    return ExecutorRegistry(found)


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except PluginError:
        raise
    except Exception as error:  # a plug-in's import may raise anything, and the operator needs one line, not our stack
        _refuse(module_name, error)


def _refuse(module_name: str, error: Exception) -> NoReturn:
    raise PluginError(f"Executor module {module_name!r} cannot be loaded: {type(error).__name__}: {error}") from error
