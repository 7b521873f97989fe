"""`create_app`: the ASGI application, put together from its routers."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import (
    alerts,
    api_keys,
    audit,
    autoscale,
    breakers,
    dashboard,
    dead_letters,
    diagnosis,
    events,
    explain,
    files,
    health,
    insights,
    metrics,
    overview,
    queues,
    sessions,
    tasks,
    webhooks,
)
from app.api.access import Door, Gate
from app.api.errors import add_error_handlers
from app.api.events import Streams
from app.api.headers import SafeHeaders
from app.api.limits import SHARED, Limits
from app.api.openapi import add_documentation
from app.api.origin import Origins
from app.api.protocol import STATE, Connections
from app.api.routes import DirectRoute
from app.core.errors import AppError
from app.core.settings import Settings
from app.core.version import VERSION
from app.services.snapshots import Snapshots
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


class OneLine:
    """Has the server log why the application cannot start as the one line it is, where it would log a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            error = sys.exception() if message["type"] == "lifespan.startup.failed" else None
            await send({**message, "message": str(error)} if isinstance(error, AppError) else message)

        await self._app(scope, receive, tell if scope["type"] == "lifespan" else send)


class Application(FastAPI):
    """Has the headers around everything, its own answer to a bug included, which no added middleware sees."""

    def __init__(self, origins: Origins, hsts_seconds: int, **options: Any) -> None:
        self._origins = origins
        self._hsts_seconds = hsts_seconds
        super().__init__(**options)

    def build_middleware_stack(self) -> ASGIApp:
        return SafeHeaders(super().build_middleware_stack(), self._origins, self._hsts_seconds)


def create_app(settings: Settings) -> FastAPI:
    """The application. It opens its services when it starts and closes them when it ends."""
    origins = Origins(settings.public_urls)
    gate = Gate(Limits(settings, os.environ.get(SHARED)), origins)
    app = Application(
        origins,
        settings.hsts_seconds,
        title="Task service",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Spans are ours (app/services/tracing.py): with FastAPI's there would be two of each, and a look for them at each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan(settings, gate),
    )
    app.add_middleware(Door, gate=gate)
    app.add_middleware(Leniency)
    app.add_middleware(OneLine)
    add_error_handlers(app)
    # The routes are tried one after the other: first those that are asked most.
    for router in (
        *(tasks.router, health.router, files.router, dead_letters.router),
        *(breakers.router, events.router, explain.router, queues.router, insights.router, autoscale.router),
        *(diagnosis.router, metrics.router, alerts.router, audit.router, api_keys.router, sessions.router),
        *(webhooks.router, overview.router, dashboard.router),
    ):
        # Side by side, not nested: an included router is matched as a whole first, a tenth of the work of a request.
        app.router.routes.extend(router.routes)
    routes = [route for route in app.routes if isinstance(route, DirectRoute)]
    open_routes = [route for route in routes if route.access.scope is None]
    gate.public = frozenset(route.path for route in open_routes if not route.access.counted)
    gate.entrances = frozenset(route.path for route in open_routes if route.access.counted)
    return app


def _lifespan(settings: Settings, gate: Gate) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_services(settings) as services:
            app.state.services = services
            app.state.streams = Streams(settings.max_streams)
            app.state.snapshots = snapshots = Snapshots(partial(overview.seen_overview, services), services.bus)
            app.state.origins = gate.origins
            app.state.connections = Connections(settings.max_connections_per_address)
            add_documentation(app, services.registry.offered)
            await services.ring.load()
            gate.ring, gate.sessions = services.ring, services.sessions
            running = [asyncio.create_task(services.upkeep.run()), asyncio.create_task(services.ring.run())]
            with ToldOfStop(services.watcher.let_go, snapshots.let_go):
                yield {STATE: app.state.connections}
            for one in running:
                one.cancel()
            await asyncio.gather(*running, snapshots.close(), return_exceptions=True)

    return lifespan


class ToldOfStop:
    """Calls each of `listeners` at SIGTERM or SIGINT, beside whatever the server does then.

    The server waits for open requests before it ends the lifespan, so those that wait for a change must hear of the stop
    earlier than that.
    """

    def __init__(self, *listeners: Callable[[], None]) -> None:
        self._listeners = listeners
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = self._before[number] = signal.getsignal(number)

            def stop(given: int, frame: Any, before: Any = before) -> None:
                for listener in self._listeners:
                    loop.call_soon_threadsafe(listener)
                if callable(before):
                    before(given, frame)

            if callable(before):
                signal.signal(number, stop)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            if callable(before):
                signal.signal(number, before)
