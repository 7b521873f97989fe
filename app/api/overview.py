"""The service at a glance as a stream of server-sent events: one `overview` event whenever its numbers have changed."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from sse_starlette import ServerSentEvent

from app.api.access import CALLER, needs, still_welcome, tenant_of
from app.api.body import header
from app.api.breakers import breaker_view
from app.api.errors import Problem
from app.api.events import PING_SECONDS, CountedStream, Streams
from app.api.query import refuse_unknown_query
from app.api.queues import queue_view
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS
from app.core.alerts import AlertState
from app.core.keys import ApiKey, Scope
from app.services.alerts import AlertReport
from app.services.insights import WorkerReport
from app.services.keys import KeyRing
from app.services.limits import QueueReport
from app.services.snapshots import Snapshot, Snapshots
from app.services.wiring import Services

router = APIRouter(tags=["insights"], route_class=DirectRoute)

OVERLOADED: dict[str, Any] = {"model": Problem, "description": "As many streams are open as may be."}
_WORKER = ("id", "name", "slots")
_ALERT = ("id", "rule", "subject", "severity", "what", "fired_at")


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: {"description": "A stream of events.", "content": {"text/event-stream": {}}},
        422: {"model": Problem, "description": "The request does not fit."},
        503: OVERLOADED,
    },
)
@needs(Scope.READ)
async def stream_overview(request: Request) -> Response:
    """The service at a glance, live. Each `overview` event has all of it: the numbers of `/stats`, the queues, and for keys
    of no tenant the workers, the breakers and the alerts that fire. It comes at once and whenever something has changed, at
    most once a second. Its id names what it shows: with `Last-Event-ID` nothing comes until that has changed."""
    refuse_unknown_query(request)
    services: Services = request.app.state.services
    snapshots: Snapshots = request.app.state.snapshots
    streams: Streams = request.app.state.streams
    last_event_id = header(request, b"last-event-id")
    seen = None if last_event_id is None else last_event_id.decode("latin-1")
    streams.take()
    events = _events(snapshots, services.ring, tenant_of(request), request.scope.get(CALLER), seen)
    return CountedStream(streams, events)


async def _events(
    snapshots: Snapshots, ring: KeyRing, tenant: str, caller: ApiKey | None, seen: str | None
) -> AsyncIterator[bytes]:
    while not snapshots.closed:
        snapshot = await snapshots.newer(tenant, seen, PING_SECONDS)
        if not await still_welcome(ring, caller):
            return
        if snapshot is not None:
            seen = snapshot.id
            yield snapshot.content


async def seen_overview(services: Services, tenant: str) -> Snapshot:
    """The event with all that a tenant may see, empty for the whole service. What grows older by itself is a moment here, not
    an age, which would be another one at each look. Raises StoreUnavailable."""
    whole = not tenant
    content = {
        "stats": asdict(await services.insights.stats(tenant)),
        "queues": [_queue_view(report) for report in await services.limits.listed(tenant)],
        "workers": [_worker_view(worker) for worker in await services.insights.workers()] if whole else None,
        "breakers": [breaker_view(report) for report in await services.breakers.listed()] if whole else None,
        "alerts": [_alert_view(one) for one in await services.alerts.listed() if _fires(one)] if whole else None,
    }
    text = orjson.dumps(content, option=OPTIONS)
    id_ = hashlib.sha256(text).hexdigest()[:16]
    return Snapshot(id_, ServerSentEvent(text.decode(), event="overview", id=id_).encode())


def _queue_view(report: QueueReport) -> dict[str, Any]:
    view = queue_view(report)
    del view["oldest_age_seconds"]
    return view | {"oldest_ready_at": report.depth.oldest_ready_at}


def _worker_view(worker: WorkerReport) -> dict[str, Any]:
    view = {name: getattr(worker.row, name) for name in _WORKER}
    return view | {"state": worker.state, "running": len(orjson.loads(worker.row.running))}


def _fires(report: AlertReport) -> bool:
    return report.alert.state is AlertState.FIRING


def _alert_view(report: AlertReport) -> dict[str, Any]:
    return {name: getattr(report.alert, name) for name in _ALERT} | {"silenced": report.silenced}
