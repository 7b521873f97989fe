"""The contract between the service and the code that does the work: `@executor`, `Context`, what may be raised, and the
registry that loads it. It must stay light: API, worker parent and runner all import it."""

import asyncio
import hashlib
import importlib
import inspect
import io
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path, PurePath
from types import ModuleType
from typing import IO, Any, NoReturn, Protocol, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_json

from app.core.breaker import Breaker
from app.core.errors import PluginError, TooLarge
from app.core.file import ANY_TYPE, FILE_ID, StoredFile, label_of
from app.core.retry import RetryPolicy

NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
LONGEST_WAIT_SECONDS = 10 * 365 * 86400.0
MARK = "__task_executor__"
ENTRY_POINT_GROUP = "task_service.executors"
"""Where an installed distribution names its executor modules."""
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
    files_dir: str = "data/files"
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
    """

    def __init__(
        self,
        *,
        task_id: int = 0,
        attempt: int = 1,
        deadline: datetime | None = None,
        checkpoints: Sequence[Any] = (),
        setup: RunnerSetup | None = None,
        reports: Reports,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.deadline = deadline
        self.checkpoints = list(checkpoints)
        self.setup = setup or RunnerSetup()
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

    @property
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
) -> Callable[[Function], Function]:
    """Mark a function `(payload, context) -> JSON` as the executor of `task_type`. It stays a plain function.

    The payload model is the contract: submissions that do not fit it are refused. The function may be `def` (runs alone
    in its runner) or `async def` (shares one). Raises PluginError, at import, for a name or a limit that makes no sense, and
    for a function that cannot be called like that. An `example` must fit the model; it is checked when it is loaded.
    `retry_on` and `fail_on` say which exceptions are worth another attempt; without them all are. While its `breaker` is
    open, tasks of this type wait.
    """
    if not NAME.fullmatch(task_type):
        raise PluginError(f"task_type {task_type!r} must match {NAME.pattern}")
    if not (isinstance(payload, type) and issubclass(payload, BaseModel)):
        raise PluginError(f"executor {task_type!r}: payload must be a pydantic model, not {payload!r}")
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
            *(tuple(retry_on), tuple(fail_on), breaker),
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


class ExecutorRegistry(Mapping[str, Executor]):
    """The executors of one process by task_type, and the modules they came from. Built by `load_executors`, then only read."""

    def __init__(self, executors: Mapping[str, Executor], modules: Sequence[str] = ()) -> None:
        self._executors = dict(sorted(executors.items()))
        self.modules = tuple(modules)
        self.breakers = {str(one.breaker.name): one.breaker for one in self._executors.values() if one.breaker}
        """The rule of every breaker that is declared, by name."""

    def __getitem__(self, task_type: str) -> Executor:
        return self._executors[task_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._executors)

    def __len__(self) -> int:
        return len(self._executors)


def installed_modules() -> tuple[str, ...]:
    """The executor modules that installed distributions name in the entry point group `task_service.executors`, in the
    order of the entry points' names, each once. Raises PluginError for a value that is more than a module."""
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))
    for point in points:
        if not all(part.isidentifier() for part in point.value.split(".")):
            raise PluginError(
                f"Entry point {point.name!r} ({ENTRY_POINT_GROUP}){_origin(point.value)} is {point.value!r}; it must name a"
                " module alone, like 'my_executors', whose @executor functions are collected."
            )
    return tuple(dict.fromkeys(point.value for point in points))


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
            _refuse(module_name, "marks no function with @executor")
        for one in marked:
            taken = found.get(one.task_type)
            if taken is not None and taken.function is not one.function:
                _refuse(module_name, f"cannot be loaded: {_claimed_twice(taken, one)}")
            _check_model(module_name, one)
            _check_breaker(module_name, one, found)
            found[one.task_type] = one
    return ExecutorRegistry(found, module_names)


def _claimed_twice(first: Executor, second: Executor) -> str:
    one, other = first.function, second.function
    if one.__module__ == other.__module__:
        return f"task_type {first.task_type!r} is claimed by two functions, {one.__name__} and {other.__name__}"
    return f"task_type {first.task_type!r} is already taken by {one.__module__!r}{_origin(one.__module__)}"


def _check_breaker(module_name: str, one: Executor, found: Mapping[str, Executor]) -> None:
    """Who shares a breaker must agree on its rule, but for the exceptions: those are a matter of each one's library."""
    for other in found.values():
        if one.breaker is None or other.breaker is None or one.breaker.name != other.breaker.name:
            continue
        if replace(one.breaker, on=()) != replace(other.breaker, on=()):
            both = f"executors {other.task_type!r} and {one.task_type!r}"
            _refuse(module_name, f"cannot be loaded: {both} declare breaker {one.breaker.name!r} differently")


def _check_model(module_name: str, one: Executor) -> None:
    """The documentation shows schema and example, so a schema that cannot be made and an example that would be refused are
    faults of the module."""
    what = "payload model"
    try:
        one.payload.model_rebuild()
        _ = one.payload_schema
        if one.example is not None:
            what = "example"
            one.payload.model_validate_json(json.dumps(dict(one.example), allow_nan=False))
    except Exception as error:  # user code: a validator, a hook for the schema
        fault = f"the {what} of executor {one.task_type!r} is wrong: {_one_line(error)}"
        _refuse(module_name, f"cannot be loaded: {fault}", error)


def _import(module_name: str) -> ModuleType:
    path = PurePath(module_name)
    if path.suffix == ".py" or len(path.parts) > 1:
        parts = path.with_suffix("").parts
        name = parts[-1] if path.is_absolute() else ".".join(part for part in parts if part != "..")
        _refuse(module_name, f"cannot be loaded: give the module name, {name}, not the file")
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        # A plug-in's import may raise anything, and the operator needs one line, not our stack.
        _refuse(module_name, f"cannot be loaded: {_one_line(error)}{_hint(module_name, error)}", error)


def _one_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in faults)
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _hint(module_name: str, error: BaseException) -> str:
    """Where it was looked for if it was not found, else the line that raised, where the text does not say it."""
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        installed = (
            str(PurePath(inspect.__file__).parent),
            *(path for path in sys.path if path.endswith(("-packages", ".zip"))),
        )
        folders = [folder or "." for folder in sys.path if not folder.startswith(installed)]
        return (
            f". Searched: {', '.join(folders)} and the installed packages. Put it beside run_api.py, into a folder"
            " named in PYTHONPATH, or install it"
        )
    ours = (__file__, importlib.__file__)
    lines = [
        (PurePath(frame.f_code.co_filename).name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(("<frozen", *ours))
    ]
    return f" ({lines[-1][0]}, line {lines[-1][1]})" if lines else ""


def _refuse(module_name: str, fault: str, error: BaseException | None = None) -> NoReturn:
    raise PluginError(f"Executor module {module_name!r}{_origin(module_name)} {fault}.") from error


def _origin(module_name: str) -> str:
    """Which installed distribution named the module: the operator never did."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.value == module_name and point.dist is not None:
            return f" of the distribution {point.dist.name} {point.dist.version}"
    return ""
