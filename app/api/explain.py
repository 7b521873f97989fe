"""The route that says why a task has not started yet."""

from dataclasses import asdict
from datetime import datetime

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.api.access import needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS
from app.api.tasks import MISSING
from app.core.explain import Why
from app.core.keys import Scope
from app.core.task import Status
from app.services.wiring import Services

router = APIRouter(tags=["tasks"], route_class=DirectRoute)


class ReasonView(BaseModel):
    """One reason why a task waits. `until` is when it is over, null where nobody can tell; `held_by` names the first few
    tasks that must end before."""

    reason: Why
    message: str
    until: datetime | None
    held_by: list[int]


class ExplanationView(BaseModel):
    """Why a task has not started: every reason, most decisive first; none once it has. `position` counts from 1 among the
    ready tasks of its queue, to 1,001; `estimated_start_at` goes by how fast the queue was worked off of late."""

    task_id: int
    status: Status
    reasons: list[ReasonView]
    position: int | None
    position_is_at_least: bool
    drained_per_second: float | None
    estimated_start_at: datetime | None


@router.get("/tasks/{task_id}/explain", response_class=Response, responses={200: {"model": ExplanationView}, **MISSING})
@needs(Scope.READ)
async def explain_task(request: Request, task_id: int) -> Response:
    """Why the task has not started yet, its place in the queue, and when it should start."""
    services: Services = request.app.state.services
    found = await services.explainer.explain(task_id, tenant_of(request))
    content = {
        "task_id": found.task.id,
        "status": found.task.status,
        "reasons": [asdict(reason) for reason in found.reasons],
        "position": found.position,
        "position_is_at_least": found.position_is_at_least,
        "drained_per_second": None if found.drained_per_second is None else round(found.drained_per_second, 3),
        "estimated_start_at": found.estimated_start_at,
    }
    return JsonAnswer(orjson.dumps(content, option=OPTIONS))
