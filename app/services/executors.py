"""The contract between the service and the code that does the work: `@executor`, `Context`, and what may be raised. It
must stay light: API, worker parent and runner all import it."""

import asyncio
import hashlib
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import orjson
from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_json

from app.core.breaker import Breaker, host_breaker
from app.core.errors import PluginError, TooLarge
from app.core.file import ANY_TYPE, FILE_ID, StoredFile, label_of
from app.core.retry import RetryPolicy
from app.core.trace import Trace

NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
LONGEST_WAIT_SECONDS = 10 * 365 * 86400.0
MARK = "__task_executor__"
FILE_ID_FORMAT = "file-id"
"""How a FileId is marked in a JSON Schema."""
FileSource = bytes | Path | IO[bytes]
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


class DependencyDown(Exception):
    """Raise it when what the executor needs does not work: the attempt failed, and its circuit breaker counts it.

    `name` is the dependency, None the one of the executor's own `breaker`. `after` (seconds, or a timedelta) is the wait
    before the next attempt; without it the policy decides. Either way the task then waits for the breaker, if it is open.
    """

    def __init__(self, reason: str, name: str | None = None, after: float | timedelta | None = None) -> None:
        super().__init__(reason)
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(f"name must match {NAME.pattern}, not {name!r}")
        self.name = name
        self.after = None if after is None else _seconds(after)


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


@dataclass(frozen=True, slots=True)
class RunnerSetup:
    """What a runner is told when it starts: modules to load, `async def` attempts at a time, limits, where files are,
    the time limit of what has none of its own, and how long something that is told to end may take."""

    modules: tuple[str, ...] = ()
    concurrency: int = 1
    max_result_bytes: int = 2**20
    max_output_bytes: int = 2**30
    files_place: str = "data/files"
    timeout_seconds: float = 300
    stop_grace_seconds: float = 5


class FileId(str):
    """The type of a payload's field that names an uploaded file.

    A submission is refused where there is no such file; the file is kept as long as the task is. Fields of this type may
    lie anywhere in a payload model.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        string = core_schema.str_schema(pattern=FILE_ID, metadata={"pydantic_js_updates": {"format": FILE_ID_FORMAT}})
        return core_schema.no_info_after_validator_function(cls, string)


class Reports(Protocol):
    """Where a context's calls go: the runner's wire in production, `RecordedReports` in a developer's own tests."""

    def progress(self, percent: float | None, message: str | None, data: Any) -> None: ...

    def log(self, message: str, fields: dict[str, Any]) -> None: ...

    def checkpoint(self, data: Any) -> "Future[bool]":
        """Done with True when stored, with False when the lease is lost."""
        ...

    def open_file(self, file_id: str) -> IO[bytes]:
        """The file's bytes. Raises FileNotFoundError."""
        ...

    def write_file(self, source: FileSource, name: str, content_type: str) -> StoredFile:
        """Put the bytes on disk. Raises TooLarge."""
        ...

    def keep_file(self, file: StoredFile, temporary: bool) -> "Future[bool]":
        """Make a written file one of the task's. Done with True when stored, with False when the lease is lost."""
        ...


class RecordedReports:
    """Keeps what an executor reports, for unit tests of an executor: `Context(reports=RecordedReports())`.

    `files` are the bytes of files by id: those an executor may open, and after the run also those it saved.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.saved: list[StoredFile] = []
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

    def open_file(self, file_id: str) -> IO[bytes]:
        if file_id not in self.files:
            raise FileNotFoundError(file_id)
        return io.BytesIO(self.files[file_id])

    def write_file(self, source: FileSource, name: str, content_type: str) -> StoredFile:
        data = _bytes_of(source)
        file_id = f"{len(self.files) + 1:032x}"
        self.files[file_id] = data
        return StoredFile(
            file_id, label_of(name), len(data), content_type, hashlib.sha256(data).hexdigest(), datetime.now(UTC)
        )

    def keep_file(self, file: StoredFile, temporary: bool) -> "Future[bool]":
        self.saved.append(file)
        stored: Future[bool] = Future()
        stored.set_result(True)
        return stored


def _bytes_of(source: FileSource) -> bytes:
    if isinstance(source, bytes):
        return source
    return source.read_bytes() if isinstance(source, Path) else source.read()


class Context:
    """What an attempt may know and say. Every call raises `StopRequested` once the attempt has been told to end.

    task_id      the task's id
    attempt      number of this attempt, from 1
    deadline     aware UTC moment at which the time limit is up
    checkpoints  what earlier attempts of this task stored, oldest first
    setup        how this runner was started, for executors that start runners of their own
    trace        the trace that the attempt belongs to, None for none; `context.trace.headers` are for a call of others
    """

    def __init__(
        self,
        *,
        task_id: int = 0,
        attempt: int = 1,
        deadline: datetime | None = None,
        checkpoints: Sequence[Any] = (),
        setup: RunnerSetup | None = None,
        trace: Trace | None = None,
        reports: Reports,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.deadline = deadline
        self.checkpoints = list(checkpoints)
        self.setup = setup or RunnerSetup()
        self.trace = trace
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

    def open_file(self, file_id: str) -> IO[bytes]:
        """An uploaded or saved file, open for reading at its beginning. Raises Fail if it is not there (any more)."""
        self._raise_if_stopped()
        try:
            return self._reports.open_file(file_id)
        except FileNotFoundError:
            raise Fail(f"file {file_id} is not there") from None

    def save_file(
        self, source: FileSource, name: str, content_type: str = ANY_TYPE, *, temporary: bool = False
    ) -> StoredFile:
        """Store bytes, the file at a path, or what a binary stream has left, as a file of this task. Put the answer's `id`
        into the result. Returns when it is on disk.

        `temporary` files go when the task ends: they are for the next attempt, named in a checkpoint. Others live as long
        as the task. Raises Fail for a file over MAX_OUTPUT_BYTES. For plain executors; in an `async def` one it would
        block the loop: use `save_file_async`.
        """
        self._raise_if_stopped()
        file = self._written(source, name, content_type)
        self._raise_unless(self._reports.keep_file(file, temporary).result())
        return file

    async def save_file_async(
        self, source: FileSource, name: str, content_type: str = ANY_TYPE, *, temporary: bool = False
    ) -> StoredFile:
        """`save_file` for `async def` executors."""
        self._raise_if_stopped()
        file = await asyncio.to_thread(self._written, source, name, content_type)
        await self.keep_file_async(file, temporary=temporary)
        return file

    async def keep_file_async(self, file: StoredFile, *, temporary: bool = False) -> None:
        """Make a file that is written already one of this task's; for executors that run others."""
        self._raise_if_stopped()
        self._raise_unless(await asyncio.wrap_future(self._reports.keep_file(file, temporary)))

    def _written(self, source: FileSource, name: str, content_type: str) -> StoredFile:
        try:
            return self._reports.write_file(source, name, content_type)
        except TooLarge as error:
            raise Fail(str(error)) from None

    def _raise_unless(self, stored: bool) -> None:
        if not stored:
            self.stop("the lease was lost")
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop_reason is not None:
            raise StopRequested(self._stop_reason)


def named_files(payload: BaseModel) -> tuple[str, ...]:
    """The ids of the files that a validated payload names, each once, wherever its FileId fields lie (private attributes
    of models included, where a model may keep what it has parsed)."""
    return tuple(dict.fromkeys(_file_ids(payload))) if _may_name_files(type(payload)) else ()


@cache
def _may_name_files(model: type[BaseModel]) -> bool:
    return bool(model.__private_attributes__) or f'"{FILE_ID_FORMAT}"' in json.dumps(
        model.model_json_schema(schema_generator=PayloadSchema)
    )


def _file_ids(value: Any) -> Iterator[str]:
    match value:
        case FileId():
            yield str(value)
        case BaseModel():
            yield from _file_ids(vars(value))
            yield from _file_ids(value.__pydantic_private__)
        case dict():
            yield from _file_ids(list(value.values()))
        case list() | tuple() | set():
            for one in value:
                yield from _file_ids(one)


@dataclass(frozen=True)
class Executor:
    """One kind of work: which function does it, what it takes, how often and how long it may try.

    None for `max_attempts`, `timeout_seconds` or `retry` means the service's setting. An attempt that raised one of
    `fail_on` is not tried again; where there is a `retry_on`, only one that raised one of those is. `breaker` has a name.
    `internal`: the service alone submits such tasks. `url_field` is the field of the payload with the URL that it calls,
    whose host has a breaker of its own.
    """

    task_type: str
    function: Callable[..., Any]
    payload: type[BaseModel]
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    retry: RetryPolicy | None = None
    example: Mapping[str, Any] | None = None
    retry_on: tuple[type[Exception], ...] = ()
    fail_on: tuple[type[Exception], ...] = ()
    breaker: Breaker | None = None
    internal: bool = False
    url_field: str | None = None

    def retries(self, error: BaseException) -> bool:
        """Whether an attempt that raised `error` may be tried again."""
        if isinstance(error, self.fail_on):
            return False
        return not self.retry_on or isinstance(error, self.retry_on)

    @property
    def dependency(self) -> str:
        """The name of the breaker that its tasks wait for: its own, or one under its task type that a person tripped."""
        return (self.breaker and self.breaker.name) or self.task_type

    def dependency_down(self, error: BaseException) -> str | None:
        """The dependency that made an attempt fail which raised `error`; None where it failed for another reason."""
        if isinstance(error, DependencyDown):
            return error.name or self.dependency
        return self.dependency if self.breaker is not None and self.breaker.counts(error) else None

    def host_breaker(self, payload: str, tenant: str = "") -> str | None:
        """The breaker of the host that a task with this payload, JSON as text, calls for that tenant; None if it calls none."""
        if self.url_field is None:
            return None
        url = orjson.loads(payload).get(self.url_field)
        return host_breaker(url, tenant) if isinstance(url, str) else None

    @cached_property
    def shares_runner(self) -> bool:
        """An `async def` executor shares a runner's loop with others; a plain one has a runner to itself."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def description(self) -> str:
        """The function's docstring, cleaned; empty where it has none."""
        return inspect.getdoc(self.function) or ""

    @cached_property
    def payload_schema(self) -> dict[str, Any]:
        """The JSON Schema of the payload, made once: to be read, not changed."""
        schema = self.payload.model_json_schema(schema_generator=PayloadSchema)
        # What authors add to a schema may be infinite, a set, a date; what comes out here is JSON.
        plain: dict[str, Any] = json.loads(to_json(schema, inf_nan_mode="null"))
        return plain


class PayloadSchema(GenerateJsonSchema):
    """JSON Schemas of payload models. What a schema cannot say (a type with a validator of its own) may be anything, and
    a default that is no JSON is left out; neither keeps a model from being used."""

    ignored_warning_kinds = GenerateJsonSchema.ignored_warning_kinds | {"non-serializable-default"}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


def executor(
    task_type: str,
    *,
    payload: type[BaseModel],
    max_attempts: int | None = None,
    timeout_seconds: float | None = None,
    retry: RetryPolicy | None = None,
    retry_on: Sequence[type[Exception]] = (),
    fail_on: Sequence[type[Exception]] = (),
    breaker: Breaker | None = None,
    example: Mapping[str, Any] | None = None,
    internal: bool = False,
    url_field: str | None = None,
) -> Callable[[Function], Function]:
    """Mark a function `(payload, context) -> JSON` as the executor of `task_type`. It stays a plain function.

    The payload model is the contract: submissions that do not fit it are refused. The function may be `def` (runs alone
    in its runner) or `async def` (shares one). Raises PluginError, at import, for a name or a limit that makes no sense, and
    for a function that cannot be called like that. An `example` must fit the model; it is checked when it is loaded.
    `retry_on` and `fail_on` say which exceptions are worth another attempt; without them all are. While its `breaker` is
    open, tasks of this type wait. With a `url_field` they wait too while the host does not answer to which the URL in that
    field of the payload leads.
    """
    if not NAME.fullmatch(task_type):
        raise PluginError(f"task_type {task_type!r} must match {NAME.pattern}")
    if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
        raise PluginError(f"executor {task_type!r}: payload must be a pydantic model, not {payload!r}")
    if url_field is not None and url_field not in payload.model_fields:
        raise PluginError(f"executor {task_type!r}: url_field {url_field!r} is no field of its payload")
    if max_attempts is not None and max_attempts < 1:
        raise PluginError(f"executor {task_type!r}: max_attempts must be at least 1, not {max_attempts}")
    if timeout_seconds is not None and timeout_seconds <= 0:
        raise PluginError(f"executor {task_type!r}: timeout_seconds must be above 0, not {timeout_seconds}")
    for kind in (*retry_on, *fail_on):
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise PluginError(f"executor {task_type!r}: retry_on and fail_on take classes of exceptions, not {kind!r}")
    if breaker is not None:
        breaker = replace(breaker, name=breaker.name or task_type)
        if not NAME.fullmatch(str(breaker.name)):
            raise PluginError(f"executor {task_type!r}: the breaker's name {breaker.name!r} must match {NAME.pattern}")

    def mark(function: Function) -> Function:
        _check_function(task_type, function)
        made = Executor(
            *(task_type, function, payload, max_attempts, timeout_seconds, retry, example),
            *(tuple(retry_on), tuple(fail_on), breaker, internal, url_field),
        )
        setattr(function, MARK, made)
        return function

    return mark


def _check_function(task_type: str, function: Callable[..., Any]) -> None:
    if not inspect.isroutine(function):
        raise PluginError(f"executor {task_type!r}: {function!r} is no function")
    shown = f"executor {task_type!r}: {function.__name__}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{shown} yields; it must return its result (context.progress tells of it on the way)")
    signature = inspect.signature(function)
    try:
        signature.bind("payload", "context")
    except TypeError as error:
        raise PluginError(f"{shown}{signature} must take (payload, context): {error}") from None
    # Of two functions with one name the module keeps the second, of two marks a function keeps the outer one.
    same_name = getattr(function, "__globals__", {}).get(function.__qualname__)
    for other in (function, same_name):
        mark = getattr(other, MARK, None)
        if mark is not None and mark.task_type != task_type and other.__module__ == function.__module__:
            raise PluginError(
                f"{shown} is already the executor of {mark.task_type!r}; each needs a function of its own"
            )
