"""Routes for circuit breakers: what is held back, and why; trip and reset by hand."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from app.api.access import actor_of, needs
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.errors import Problem
from app.api.insights import UNAVAILABLE
from app.api.openapi import json_body
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, Trip
from app.api.tasks import WRONG
from app.core.breaker import BreakerState
from app.core.keys import Scope
from app.services.breakers import BreakerReport
from app.services.wiring import Services

router = APIRouter(tags=["breakers"], route_class=DirectRoute)

BreakerName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such breaker."}}


class BreakerView(BaseModel):
    """One breaker. `failures` are those in a row; `trips` how often in a row it opened; `probes` how many attempts are let
    through now to try. `open_until` is null while closed, and where it stays open until it is reset. `waiting` are the ready
    tasks that it holds back."""

    name: str
    state: BreakerState
    reason: str | None
    failures: int
    trips: int
    opened_at: datetime | None
    open_until: datetime | None
    tripped_by_hand: bool
    probes: int
    task_types: list[str]
    waiting: int


class BreakerList(BaseModel):
    """Every breaker that an executor declares or a person has tripped, and those of hosts (`host:...`) that failed of late, by
    name."""

    items: list[BreakerView]


@router.get("/breakers", response_class=Response, responses={200: {"model": BreakerList}, 503: UNAVAILABLE})
@needs(Scope.READ, whole=True)
async def list_breakers(request: Request) -> Response:
    """Every circuit breaker, and what waits behind those that are open."""
    return _answer({"items": [breaker_view(report) for report in await _services(request).breakers.listed()]})


@router.post(
    "/breakers/{name}/trip",
    response_class=Response,
    responses={200: {"model": BreakerView}, **MISSING, **WRONG},
    openapi_extra=json_body("Trip"),
)
@needs(Scope.MANAGE, whole=True)
async def trip_breaker(request: Request, name: BreakerName) -> Response:
    """Hold back the tasks of a dependency, or of a task type, for some seconds or until it is reset."""
    services = _services(request)
    asked = await read_json(request, Trip, services.settings.max_body_bytes, services.settings.max_json_depth)
    return _answer(breaker_view(await services.breakers.trip(name, asked.reason, asked.seconds, actor_of(request))))


@router.post(
    "/breakers/{name}/reset",
    response_class=Response,
    responses={200: {"model": BreakerView}, **MISSING, 422: WRONG[422], 503: WRONG[503]},
)
@needs(Scope.MANAGE, whole=True)
async def reset_breaker(request: Request, name: BreakerName) -> Response:
    """Close a breaker and forget its failures: what waits for it runs at once."""
    return _answer(breaker_view(await _services(request).breakers.reset(name, actor_of(request))))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def breaker_view(report: BreakerReport) -> dict[str, Any]:
    """A `BreakerView`."""
    circuit = report.circuit
    return {
        "name": circuit.name,
        "state": report.state,
        "reason": circuit.reason,
        "failures": circuit.failures,
        "trips": circuit.trips,
        "opened_at": circuit.opened_at,
        "open_until": circuit.open_until,
        "tripped_by_hand": circuit.tripped_by_hand,
        "probes": len(circuit.let_through) if report.state is BreakerState.HALF_OPEN else 0,
        "task_types": report.task_types,
        "waiting": report.waiting,
    }


def _answer(content: object) -> Response:
    return JsonAnswer(orjson.dumps(content, option=OPTIONS))
