"""The route that says how many workers there should be, for whatever starts and ends them."""

import os
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.access import needs
from app.api.answer import JsonAnswer
from app.api.errors import Problem
from app.api.insights import UNAVAILABLE
from app.api.query import Name, refuse_unknown_query
from app.api.routes import DirectRoute
from app.core.autoscale import Demand, slots_wanted, workers_wanted
from app.core.keys import Scope
from app.services.wiring import Services

router = APIRouter(tags=["insights"], route_class=DirectRoute)

CORES = os.cpu_count() or 1


class QueueDemand(BaseModel):
    """What waits and runs in one queue, how fast tasks completed within the last minute, and what that asks for: `slots`
    attempts side by side."""

    workers: int
    slots: int
    ready: int
    running: int
    oldest_age_seconds: float
    completed_per_second: float
    mean_seconds: float | None


class Autoscale(BaseModel):
    """How many workers would do for all the queues that were asked for, and for each one alone."""

    workers: int
    slots: int
    queues: dict[str, QueueDemand]


@router.get(
    "/autoscale",
    response_class=Response,
    responses={
        200: {"model": Autoscale},
        422: {"model": Problem, "description": "The request does not fit."},
        503: UNAVAILABLE,
    },
)
@needs(Scope.READ, whole=True)
async def read_autoscale(
    request: Request,
    queue: Annotated[list[Name] | None, Query(description="Only this queue; repeatable. Default: every queue.")] = None,
    slots_per_worker: Annotated[
        int,
        Query(ge=1, le=100_000, description="Attempts that one worker runs side by side. Default: the API's cores."),
    ] = CORES,
    drain_seconds: Annotated[
        float, Query(ge=0.1, le=86400, description="How soon what waits should have begun.")
    ] = 30.0,
) -> Response:
    """How many workers are wanted now. `workers` is always a number, as a scaler needs it."""
    refuse_unknown_query(request, "queue", "slots_per_worker", "drain_seconds")
    services: Services = request.app.state.services
    found = await services.insights.demands()
    demands = {name: found.get(name, Demand()) for name in dict.fromkeys(queue or found)}
    slots = {name: slots_wanted(demand, drain_seconds) for name, demand in demands.items()}
    total = sum(slots.values())
    queues: dict[str, Any] = {
        name: {"workers": workers_wanted(slots[name], slots_per_worker), "slots": slots[name], **asdict(demand)}
        for name, demand in demands.items()
    }
    answer = {"workers": workers_wanted(total, slots_per_worker), "slots": total, "queues": queues}
    return JsonAnswer(orjson.dumps(answer))
