"""`create_app`: the ASGI application, put together from its routers."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import breakers, dead_letters, events, files, health, insights, tasks
from app.api.errors import add_error_handlers
from app.api.events import Streams
from app.api.openapi import add_documentation
from app.core.settings import Settings
from app.core.version import VERSION
from app.services.wiring import open_services

DESCRIPTION = "Submit a task over HTTP and get its id at once; workers do it; fetch the result. Errors are RFC 9457."


class Leniency:
    """Makes `/tasks` and `/tasks/` one path, without a redirect that a POST would not survive; and answers HEAD as GET, of
    which the server sends the head alone. (HEAD of an endless stream would never end, so that one stays refused.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if len(path) > 1 and path.endswith("/"):
                scope = {**scope, "path": path[:-1]}
            if scope["method"] == "HEAD" and not scope["path"].endswith("/events"):
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The application. It opens its services when it starts and closes them when it ends."""
    app = FastAPI(
        title="Task service",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings),
    )
    app.add_middleware(Leniency)
    add_error_handlers(app)
    for router in (
        *(tasks.router, files.router, dead_letters.router, breakers.router),
        *(events.router, insights.router, health.router),
    ):
        # Side by side, not nested: an included router is matched as a whole first, a tenth of the work of a request.
        app.router.routes.extend(router.routes)
    return app


def _lifespan(settings: Settings) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services:
            app.state.services = services
            app.state.streams = Streams(settings.max_streams)
            add_documentation(app, services.registry)
            chores = asyncio.create_task(services.chores.run())
            with ToldOfStop(services.watcher.let_go):
                yield
            chores.cancel()
            await asyncio.gather(chores, return_exceptions=True)

    return lifespan


class ToldOfStop:
    """Calls `listener` at SIGTERM or SIGINT, beside whatever the server does then.

    The server waits for open requests before it ends the lifespan, so those that wait for a task must hear of the stop
    earlier than that.
    """

    def __init__(self, listener: Callable[[], None]) -> None:
        self._listener = listener
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = self._before[number] = signal.getsignal(number)

            def stop(given: int, frame: Any, before: Any = before) -> None:
                loop.call_soon_threadsafe(self._listener)
                if callable(before):
                    before(given, frame)

            if callable(before):
                signal.signal(number, stop)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            if callable(before):
                signal.signal(number, before)
