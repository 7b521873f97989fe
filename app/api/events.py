"""A task as a stream of server-sent events: one `task` event for each change, the last when it has ended."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from app.api.schemas import summary_json
from app.api.tasks import MISSING
from app.core.errors import NotFound, Overloaded
from app.core.task import Task
from app.services.wiring import Services

router = APIRouter(tags=["tasks"])

PING_SECONDS = 15
LOOK_SECONDS = 30.0


@router.get(
    "/tasks/{task_id}/events",
    response_class=Response,
    responses={200: {"description": "A stream of events.", "content": {"text/event-stream": {}}}, **MISSING},
)
async def stream_task(request: Request, task_id: int) -> Response:
    """Live state and progress. Each `task` event carries the task without payload and result; the stream ends with it."""
    services: Services = request.app.state.services
    streams: Streams = request.app.state.streams
    task = await services.tasks.get(task_id)
    streams.take()
    return CountedStream(streams, _changes(services, task))


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

    def __init__(self, streams: Streams, events: AsyncIterator[ServerSentEvent]) -> None:
        super().__init__(events, ping=PING_SECONDS, headers={"Cache-Control": "no-store"})
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.give_back()


async def _changes(services: Services, task: Task) -> AsyncIterator[ServerSentEvent]:
    number = 0
    while True:
        number += 1
        yield ServerSentEvent(summary_json(task).decode(), event="task", id=str(number))
        if task.finished:
            return
        while not await services.watcher.changed(task, LOOK_SECONDS):
            if services.watcher.closed:
                return
        try:
            task = await services.tasks.get(task.id)
        except NotFound:
            yield ServerSentEvent("{}", event="deleted")
            return
