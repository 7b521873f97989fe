"""`Client` and `AsyncClient`: the service in Python. Each call is explained where it is written, in `operations`."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import update_wrapper
from inspect import Parameter, Signature, signature
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

from taskclient import operations
from taskclient.connection import AsyncConnection, Connection
from taskclient.models import Submission, SubmitOptions, Task
from taskclient.operations import Payload
from taskclient.steps import Steps, Stream

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Method = TypeVar("Method", bound=Callable[..., Any])


class _Part:
    """A group of calls of a client; that client takes the steps."""

    def __init__(self, client: Connection) -> None:
        self._run = client._run
        self._iterate = client._iterate


class _AsyncPart:
    """A group of calls of a client; that client takes the steps."""

    def __init__(self, client: AsyncConnection) -> None:
        self._run = client._run
        self._iterate = client._iterate


def _written_as(make: Callable[..., Any]) -> Callable[[Method], Method]:
    """Give a method the documentation of its operation."""

    def document(method: Method) -> Method:
        method.__doc__ = make.__doc__
        return method

    return document


def _dressed(method: Callable[..., Any], make: Callable[..., Any], left_out: int = 0) -> None:
    """Give a method the name, the documentation and the parameters of its operation, for whoever asks for help."""
    update_wrapper(method, make)
    del method.__wrapped__  # type: ignore[attr-defined]  # else what the operation yields would pass for what is returned
    itself = Parameter("self", Parameter.POSITIONAL_ONLY)
    parameters = [itself, *list(signature(make).parameters.values())[left_out:]]
    method.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # help() reads it


def _call(make: Callable[P, Steps[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that takes the steps of an operation. Its parameters and its documentation are the operation's."""

    def method(self: Connection | _Part, /, *arguments: P.args, **named: P.kwargs) -> T:
        return self._run(make(*arguments, **named))

    _dressed(method, make)
    return method


def _each(make: Callable[P, Stream[Item]]) -> Callable[Concatenate[Any, P], Iterator[Item]]:
    """A method that gives what an operation gives, one by one."""

    def method(self: Connection | _Part, /, *arguments: P.args, **named: P.kwargs) -> Iterator[Item]:
        return self._iterate(make(*arguments, **named))

    _dressed(method, make)
    return method


def _acall(make: Callable[P, Steps[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """A method that takes the steps of an operation. Its parameters and its documentation are the operation's."""

    async def method(self: AsyncConnection | _AsyncPart, /, *arguments: P.args, **named: P.kwargs) -> T:
        return await self._run(make(*arguments, **named))

    _dressed(method, make)
    return method


def _aeach(make: Callable[P, Stream[Item]]) -> Callable[Concatenate[Any, P], AsyncIterator[Item]]:
    """A method that gives what an operation gives, one by one."""

    def method(self: AsyncConnection | _AsyncPart, /, *arguments: P.args, **named: P.kwargs) -> AsyncIterator[Item]:
        return self._iterate(make(*arguments, **named))

    _dressed(method, make)
    return method


class _Handle:
    """One task. `task` is how it was last seen, None if it was not seen yet."""

    def __init__(self, task_id: int, task: Task | None = None, *, replayed: bool = False) -> None:
        self.id = task_id
        self.task = task
        self.replayed = replayed
        """Whether the submission found the task already there, by its idempotency key."""

    def _seen(self, value: T) -> T:
        if isinstance(value, Task):
            self.task = value
        return value

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.task.status if self.task else 'not seen yet'}>"


def _of_task(make: Callable[Concatenate[int, P], Steps[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method of a handle: the operation on its task."""

    def method(self: "TaskHandle", /, *arguments: P.args, **named: P.kwargs) -> T:
        return self._seen(self._client._run(make(self.id, *arguments, **named)))

    _dressed(method, make, left_out=1)
    return method


def _aof_task(make: Callable[Concatenate[int, P], Steps[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """A method of a handle: the operation on its task."""

    async def method(self: "AsyncTaskHandle", /, *arguments: P.args, **named: P.kwargs) -> T:
        return self._seen(await self._client._run(make(self.id, *arguments, **named)))

    _dressed(method, make, left_out=1)
    return method


class TaskHandle(_Handle):
    """A task to follow and to steer."""

    def __init__(self, client: Connection, task_id: int, task: Task | None = None, *, replayed: bool = False) -> None:
        super().__init__(task_id, task, replayed=replayed)
        self._client = client

    refresh = _of_task(operations.get)
    wait = _of_task(operations.wait)
    edit = _of_task(operations.edit)
    cancel = _of_task(operations.cancel)
    retry = _of_task(operations.retry)
    delete = _of_task(operations.delete)
    attempts = _of_task(operations.attempts)
    logs = _of_task(operations.logs)
    explain = _of_task(operations.explain)
    files = _of_task(operations.task_files)

    @_written_as(operations.result)
    def result(self, timeout: float | None = None) -> Any:
        return operations.result_of(self.wait(timeout))

    @_written_as(operations.events)
    def events(self) -> Iterator[Task]:
        return map(self._seen, self._client._iterate(operations.events(self.id)))


class AsyncTaskHandle(_Handle):
    """A task to follow and to steer."""

    def __init__(
        self, client: AsyncConnection, task_id: int, task: Task | None = None, *, replayed: bool = False
    ) -> None:
        super().__init__(task_id, task, replayed=replayed)
        self._client = client

    refresh = _aof_task(operations.get)
    wait = _aof_task(operations.wait)
    edit = _aof_task(operations.edit)
    cancel = _aof_task(operations.cancel)
    retry = _aof_task(operations.retry)
    delete = _aof_task(operations.delete)
    attempts = _aof_task(operations.attempts)
    logs = _aof_task(operations.logs)
    explain = _aof_task(operations.explain)
    files = _aof_task(operations.task_files)

    @_written_as(operations.result)
    async def result(self, timeout: float | None = None) -> Any:
        return operations.result_of(await self.wait(timeout))

    @_written_as(operations.events)
    async def events(self) -> AsyncGenerator[Task, None]:
        async with aclosing(self._client._iterate(operations.events(self.id))) as seen:
            async for task in seen:
                yield self._seen(task)


class DeadLetters(_Part):
    """Failed tasks that nobody has dealt with."""

    groups = _call(operations.dead_letter_groups)
    requeue = _call(operations.requeue)
    resolve = _call(operations.resolve)
    purge = _call(operations.purge)
    list = _each(operations.dead_letters)


class AsyncDeadLetters(_AsyncPart):
    """Failed tasks that nobody has dealt with."""

    groups = _acall(operations.dead_letter_groups)
    requeue = _acall(operations.requeue)
    resolve = _acall(operations.resolve)
    purge = _acall(operations.purge)
    list = _aeach(operations.dead_letters)


class Breakers(_Part):
    """Circuit breakers."""

    trip = _call(operations.trip)
    reset = _call(operations.reset)
    list = _call(operations.breakers)


class AsyncBreakers(_AsyncPart):
    """Circuit breakers."""

    trip = _acall(operations.trip)
    reset = _acall(operations.reset)
    list = _acall(operations.breakers)


class Webhooks(_Part):
    """Subscriptions to the ends of tasks."""

    create = _call(operations.create_webhook)
    get = _call(operations.webhook)
    change = _call(operations.change_webhook)
    delete = _call(operations.delete_webhook)
    test = _call(operations.ping_webhook)
    deliveries = _each(operations.deliveries)
    redeliver = _call(operations.redeliver)
    list = _call(operations.webhooks)


class AsyncWebhooks(_AsyncPart):
    """Subscriptions to the ends of tasks."""

    create = _acall(operations.create_webhook)
    get = _acall(operations.webhook)
    change = _acall(operations.change_webhook)
    delete = _acall(operations.delete_webhook)
    test = _acall(operations.ping_webhook)
    deliveries = _aeach(operations.deliveries)
    redeliver = _acall(operations.redeliver)
    list = _acall(operations.webhooks)


class Alerts(_Part):
    """What is wrong with the service by its own rules, and who is told."""

    history = _each(operations.alert_history)
    silences = _call(operations.silences)
    silence = _call(operations.silence)
    end_silence = _call(operations.end_silence)
    test = _call(operations.try_channels)
    list = _call(operations.alerts)


class AsyncAlerts(_AsyncPart):
    """What is wrong with the service by its own rules, and who is told."""

    history = _aeach(operations.alert_history)
    silences = _acall(operations.silences)
    silence = _acall(operations.silence)
    end_silence = _acall(operations.end_silence)
    test = _acall(operations.try_channels)
    list = _acall(operations.alerts)


class Keys(_Part):
    """API keys, for a key that may do everything."""

    create = _call(operations.create_key)
    revoke = _call(operations.revoke_key)
    list = _call(operations.keys)


class AsyncKeys(_AsyncPart):
    """API keys, for a key that may do everything."""

    create = _acall(operations.create_key)
    revoke = _acall(operations.revoke_key)
    list = _acall(operations.keys)


class Files(_Part):
    """Files that go in and out of tasks."""

    upload = _call(operations.upload)
    download = _call(operations.download)
    read = _call(operations.read_file)
    stream = _each(operations.stream_file)
    delete = _call(operations.delete_file)


class AsyncFiles(_AsyncPart):
    """Files that go in and out of tasks."""

    upload = _acall(operations.upload)
    download = _acall(operations.download)
    read = _acall(operations.read_file)
    stream = _aeach(operations.stream_file)
    delete = _acall(operations.delete_file)


class Client(Connection):
    """The service, by calls that block. Close it, or use it in a `with`.

    >>> with Client("http://localhost:8000") as client:
    ...     client.submit("text_processing", {"text": "Hello World"}).result(timeout=30)["statistics"]["words"]
    2
    """

    @_written_as(operations.submit)
    def submit(
        self,
        task_type: str,
        payload: Payload | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> TaskHandle:
        steps = operations.submit(task_type, payload, idempotency_key=idempotency_key, **options)
        task, replayed = self._run(steps)
        return TaskHandle(self, task.id, task, replayed=replayed)

    @_written_as(operations.submit_many)
    def submit_many(self, submissions: Iterable[Submission]) -> Sequence[TaskHandle]:
        return [self.task(task_id) for task_id in self._run(operations.submit_many(submissions))]

    def task(self, task_id: int) -> TaskHandle:
        """A handle on a task. Asks nothing: whether there is such a task shows when the handle is used."""
        return TaskHandle(self, task_id)

    get = _call(operations.get)
    wait = _call(operations.wait)
    result = _call(operations.result)
    edit = _call(operations.edit)
    cancel = _call(operations.cancel)
    retry = _call(operations.retry)
    delete = _call(operations.delete)
    attempts = _call(operations.attempts)
    logs = _call(operations.logs)
    explain = _call(operations.explain)
    events = _each(operations.events)
    task_files = _call(operations.task_files)
    task_types = _call(operations.task_types)
    task_type = _call(operations.task_type)
    queues = _call(operations.queues)
    queue = _call(operations.queue)
    pause_queue = _call(operations.pause_queue)
    resume_queue = _call(operations.resume_queue)
    limit_queue = _call(operations.limit_queue)
    workers = _call(operations.workers)
    stats = _call(operations.stats)
    health = _call(operations.health)
    diagnosis = _call(operations.diagnosis)
    audit = _each(operations.audit)
    list = _each(operations.list_tasks)

    @property
    def dead_letters(self) -> DeadLetters:
        return DeadLetters(self)

    @property
    def breakers(self) -> Breakers:
        return Breakers(self)

    @property
    def webhooks(self) -> Webhooks:
        return Webhooks(self)

    @property
    def alerts(self) -> Alerts:
        return Alerts(self)

    @property
    def keys(self) -> Keys:
        return Keys(self)

    @property
    def files(self) -> Files:
        return Files(self)


class AsyncClient(AsyncConnection):
    """The service, for asyncio. Close it, or use it in an `async with`."""

    @_written_as(operations.submit)
    async def submit(
        self,
        task_type: str,
        payload: Payload | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncTaskHandle:
        steps = operations.submit(task_type, payload, idempotency_key=idempotency_key, **options)
        task, replayed = await self._run(steps)
        return AsyncTaskHandle(self, task.id, task, replayed=replayed)

    @_written_as(operations.submit_many)
    async def submit_many(self, submissions: Iterable[Submission]) -> Sequence[AsyncTaskHandle]:
        return [self.task(task_id) for task_id in await self._run(operations.submit_many(submissions))]

    def task(self, task_id: int) -> AsyncTaskHandle:
        """A handle on a task. Asks nothing: whether there is such a task shows when the handle is used."""
        return AsyncTaskHandle(self, task_id)

    get = _acall(operations.get)
    wait = _acall(operations.wait)
    result = _acall(operations.result)
    edit = _acall(operations.edit)
    cancel = _acall(operations.cancel)
    retry = _acall(operations.retry)
    delete = _acall(operations.delete)
    attempts = _acall(operations.attempts)
    logs = _acall(operations.logs)
    explain = _acall(operations.explain)
    events = _aeach(operations.events)
    task_files = _acall(operations.task_files)
    task_types = _acall(operations.task_types)
    task_type = _acall(operations.task_type)
    queues = _acall(operations.queues)
    queue = _acall(operations.queue)
    pause_queue = _acall(operations.pause_queue)
    resume_queue = _acall(operations.resume_queue)
    limit_queue = _acall(operations.limit_queue)
    workers = _acall(operations.workers)
    stats = _acall(operations.stats)
    health = _acall(operations.health)
    diagnosis = _acall(operations.diagnosis)
    audit = _aeach(operations.audit)
    list = _aeach(operations.list_tasks)

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        return AsyncDeadLetters(self)

    @property
    def breakers(self) -> AsyncBreakers:
        return AsyncBreakers(self)

    @property
    def webhooks(self) -> AsyncWebhooks:
        return AsyncWebhooks(self)

    @property
    def alerts(self) -> AsyncAlerts:
        return AsyncAlerts(self)

    @property
    def keys(self) -> AsyncKeys:
        return AsyncKeys(self)

    @property
    def files(self) -> AsyncFiles:
        return AsyncFiles(self)
