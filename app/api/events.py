"""A task as a stream of server-sent events: one `task` event for each change, the last when it has ended; and, for who asks
for them, a `log` event for the lines that its attempts print and log."""

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import groupby
from operator import attrgetter
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette import types

from app.api.access import needs, tenant_of
from app.api.body import header
from app.api.protocol import CONNECTION
from app.api.query import refuse_unknown_query
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, log_fields, summary_json
from app.api.tasks import MISSING
from app.core.errors import NotFound, Overloaded, StoreUnavailable
from app.core.keys import Scope
from app.core.task import Task
from app.models.task_logs import Position
from app.models.tasks import version_of
from app.services.wiring import Services

router = APIRouter(tags=["tasks"], route_class=DirectRoute)

PING_SECONDS = 15
LOOK_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 1.0
"""After trouble with the store, which a stream outlives."""
LAST_WORDS_SECONDS = 0.3
_POSITION = re.compile(rb"([0-9]{1,18})\.([0-9]{1,9})")


@router.get(
    "/tasks/{task_id}/events",
    response_class=Response,
    responses={200: {"description": "A stream of events.", "content": {"text/event-stream": {}}}, **MISSING},
)
@needs(Scope.READ)
async def stream_task(
    request: Request,
    task_id: int,
    logs: Annotated[bool, Query(description="With what its attempts print and log.")] = False,
) -> Response:
    """Live state and progress. Each `task` event carries the task without payload and result; the stream ends with it. With
    `logs` each `log` event carries lines of one attempt, and `Last-Event-ID` says which were read already."""
    refuse_unknown_query(request, "logs")
    services: Services = request.app.state.services
    streams: Streams = request.app.state.streams
    read_to = _position(header(request, b"last-event-id")) if logs else None
    task = await services.tasks.get(task_id, tenant_of(request))
    streams.take()
    events = _changes(services, task) if read_to is None else _Reader(services, task, read_to).events()
    return CountedStream(streams, events)


def _position(last_event_id: bytes | None) -> Position:
    """What `log` events have as their id. Anything else is no place to go on from, so all is told."""
    found = _POSITION.fullmatch(last_event_id or b"")
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Streams:
    """Counts the open streams of this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    def take(self) -> None:
        """Count one more. Raises Overloaded when as many are open as may be."""
        if self._open >= self._most:
            raise Overloaded(f"{self._open} event streams are open already.")
        self._open += 1

    def give_back(self) -> None:
        self._open -= 1


class CountedStream(EventSourceResponse):
    """Gives its place back however it ends: a client may be gone before the first event is even asked for."""

    def __init__(self, streams: Streams, events: AsyncIterator[ServerSentEvent | bytes]) -> None:
        super().__init__(events, ping=PING_SECONDS)
        self._streams = streams

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        try:
            connection = scope.get("state", {}).get(CONNECTION)
            if connection is not None:  # there is none where the application is called without a server
                connection.expect_signs_of_life()
            await super().__call__(scope, receive, send)
        finally:
            self._streams.give_back()


class _Reader:
    """A stream of a task with its lines."""

    def __init__(self, services: Services, task: Task, read_to: Position) -> None:
        self._services = services
        self._task = task
        self._read_to = read_to

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        told: Task | None = None
        while True:
            try:
                if self._task.finished:  # its last words may come a moment later than its end
                    await self._services.watcher.changed(self._task, LAST_WORDS_SECONDS, self._read_to)
                for event in await self._lines():
                    yield event
                if told is None or version_of(told) != version_of(self._task):
                    told = self._task
                    yield ServerSentEvent(summary_json(told).decode(), event="task", id=self._id)
                if told.finished:
                    return
                changed = await _next_version(self._services, told, self._read_to)
            except NotFound:
                yield ServerSentEvent("{}", event="deleted")
                return
            if changed is None:
                return
            self._task = changed

    @property
    def _id(self) -> str:
        return "{}.{}".format(*self._read_to)

    async def _lines(self) -> list[ServerSentEvent]:
        """What there is to read."""
        try:
            chunks = await self._services.tasks.lines(self._task.id, self._read_to)
        except StoreUnavailable:  # the next look finds them still unread
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            return []
        events = []
        for lease, of_attempt in groupby(chunks, key=attrgetter("lease")):
            unread = list(of_attempt)
            before = self._read_to[1] if self._read_to[0] == lease else 0
            self._read_to = (lease, unread[-1].number)
            view = orjson.dumps(log_fields(unread, before), option=OPTIONS)
            events.append(ServerSentEvent(view.decode(), event="log", id=self._id))
        return events


async def _changes(services: Services, task: Task) -> AsyncIterator[ServerSentEvent]:
    number = 0
    while True:
        number += 1
        yield ServerSentEvent(summary_json(task).decode(), event="task", id=str(number))
        if task.finished:
            return
        try:
            changed = await _next_version(services, task)
        except NotFound:
            yield ServerSentEvent("{}", event="deleted")
            return
        if changed is None:
            return
        task = changed


async def _next_version(services: Services, task: Task, read_to: Position | None = None) -> Task | None:
    """The task as soon as it looks different, or has lines behind `read_to`; None when the service stops. Raises NotFound."""
    while not services.watcher.closed:
        if await services.watcher.changed(task, LOOK_SECONDS, read_to):
            try:
                return await services.tasks.get(task.id)
            except StoreUnavailable:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return None
