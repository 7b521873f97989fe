"""Routes that say how the service is, and what it is."""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api import dashboard
from app.api.access import public
from app.api.answer import JsonAnswer
from app.api.routes import DirectRoute
from app.core.errors import StoreUnavailable
from app.core.version import VERSION
from app.services.wiring import Services

router = APIRouter(tags=["health"], route_class=DirectRoute)


class Health(BaseModel):
    """`status` is healthy, degraded (it works, but something should be seen to) or unhealthy."""

    status: str
    version: str
    checks: dict[str, Any]


def _answer(content: dict[str, Any], status: int = 200) -> Response:
    return JsonAnswer(orjson.dumps(content), status)


async def _checks(services: Services) -> tuple[str, dict[str, Any]]:
    checks: dict[str, Any] = {"store": "ok", **services.database.about(), **services.wakeup.about()}
    if services.database.log_is_long:
        checks["log_warning"] = (
            f"The write-ahead log has {services.database.log_bytes} bytes and cannot be written back, because something has"
            " been reading in the database for long."
        )
    status = "degraded" if any(name.endswith("_warning") for name in checks) else "healthy"
    try:
        await services.insights.store_answers()
    except StoreUnavailable as error:
        return "unhealthy", checks | {"store": str(error)}
    return status, checks


@router.get("/health", response_class=Response, responses={200: {"model": Health}, 503: {"model": Health}})
@public
async def read_health(request: Request) -> Response:
    """How the service is: its store answers, and can be trusted to keep what it is given."""
    status, checks = await _checks(request.app.state.services)
    content = {"status": status, "version": VERSION, "checks": checks}
    return _answer(content, 503 if status == "unhealthy" else 200)


@router.get("/health/live", response_class=Response, responses={200: {"description": "The process answers."}})
@public
async def read_liveness(request: Request) -> Response:
    """The process answers; says nothing of the store."""
    return _answer({"status": "alive"})


@router.get("/health/ready", response_class=Response, responses={200: {"model": Health}, 503: {"model": Health}})
@public
async def read_readiness(request: Request) -> Response:
    """Whether requests should be sent here: the same checks as /health."""
    return await read_health(request)


@router.get(
    "/",
    response_class=Response,
    responses={200: {"description": "What there is.", "content": {"application/json": {}, "text/html": {}}}},
)
@public
async def read_root(request: Request) -> Response:
    """What this is and where things are; for whoever accepts HTML, the dashboard."""
    if dashboard.wants_page(request):
        return dashboard.page(request)
    links = {
        "tasks": "/tasks/",
        "bulk": "/tasks/bulk",
        "task_types": "/task-types",
        "queues": "/queues",
        "workers": "/workers",
        "stats": "/stats",
        "autoscale": "/autoscale",
        "metrics": "/metrics",
        "diagnosis": "/diagnosis",
        "api_keys": "/api-keys",
        "health": "/health",
        "docs": "/docs",
        "openapi": "/openapi.json",
    }
    answer = _answer({"service": "task-service", "version": VERSION, "links": links})
    answer.headers["Vary"] = "Accept"
    return answer
