"""Routes that say how the service is, and what it is."""

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.core.errors import StoreUnavailable
from app.core.version import VERSION
from app.services.wiring import Services

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """`status` is healthy, degraded (it works, but something should be seen to) or unhealthy."""

    status: str
    version: str
    checks: dict[str, Any]


def _answer(content: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _checks(services: Services) -> tuple[str, dict[str, Any]]:
    checks: dict[str, Any] = {"store": "ok", "sqlite": services.database.library_version}
    status = "healthy"
    if not services.database.wal_is_safe:
        status = "degraded"
        checks["sqlite_warning"] = (
            "This SQLite library can corrupt a write-ahead log that two processes share, so a rollback journal is used,"
            " which is slower. Install the pysqlite3 wheel, or Python with SQLite 3.51.3 or later."
        )
    try:
        await services.insights.store_answers()
    except StoreUnavailable as error:
        return "unhealthy", checks | {"store": str(error)}
    return status, checks


@router.get("/health", response_class=Response, responses={200: {"model": Health}, 503: {"model": Health}})
async def read_health(request: Request) -> Response:
    """How the service is: its store answers, and its SQLite library can be trusted."""
    status, checks = await _checks(request.app.state.services)
    content = {"status": status, "version": VERSION, "checks": checks}
    return _answer(content, 503 if status == "unhealthy" else 200)


@router.get("/health/live", response_class=Response, responses={200: {"description": "The process answers."}})
async def read_liveness(request: Request) -> Response:
    """The process answers; says nothing of the store."""
    return _answer({"status": "alive"})


@router.get("/health/ready", response_class=Response, responses={200: {"model": Health}, 503: {"model": Health}})
async def read_readiness(request: Request) -> Response:
    """Whether requests should be sent here: the same checks as /health."""
    return await read_health(request)


@router.get("/", response_class=Response, responses={200: {"description": "What there is."}})
async def read_root(request: Request) -> Response:
    """What this is and where things are."""
    links = {
        "tasks": "/tasks/",
        "bulk": "/tasks/bulk",
        "task_types": "/task-types",
        "queues": "/queues",
        "workers": "/workers",
        "stats": "/stats",
        "health": "/health",
        "docs": "/docs",
        "openapi": "/openapi.json",
    }
    return _answer({"service": "task-service", "version": VERSION, "links": links})
