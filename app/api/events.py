"""A task as a stream of server-sent events: one `task` event for each change, the last when it has ended."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

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
    streams.ensure_room()
    task = await services.tasks.get(task_id)
    return EventSourceResponse(
        streams.counted(_changes(services, task)), ping=PING_SECONDS, headers={"Cache-Control": "no-store"}
    )


class Streams:
    """Counts the open streams of this process. A stream counts from its first byte, so a client that never listens
    cannot use a place up."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    def ensure_room(self) -> None:
        """Raise Overloaded when as many streams are open as may be."""
        if self._open >= self._most:
            raise Overloaded(f"{self._open} event streams are open already.")

    async def counted(self, stream: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
        self._open += 1
        try:
            async for event in stream:
                yield event
        finally:
            self._open -= 1


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
