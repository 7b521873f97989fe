"""The route that says what is wrong with the service."""

from datetime import datetime

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.access import needs
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS
from app.core.diagnosis import Severity
from app.core.keys import Scope
from app.core.version import VERSION
from app.services.wiring import Services

router = APIRouter(tags=["insights"], route_class=DirectRoute)


class FindingView(BaseModel):
    """Something that is wrong: what, why it matters, what to do."""

    code: str = Field(description="A word for programs, which does not change.")
    severity: Severity
    what: str
    why: str
    what_to_do: str


class DiagnosisView(BaseModel):
    """What was looked at, and what is wrong. `at` is now, by the clock of the API."""

    at: datetime
    version: str
    checked: list[str]
    items: list[FindingView]


@router.get("/diagnosis", response_class=Response, responses={200: {"model": DiagnosisView}})
@needs(Scope.READ, whole=True)
async def read_diagnosis(request: Request) -> Response:
    """What is wrong with the store, the disk, the workers, what waits for nobody, what fails. For people and dashboards;
    probes ask /health."""
    services: Services = request.app.state.services
    report = await services.diagnosis.examine()
    content = {
        "at": services.database.clock()(),
        "version": VERSION,
        "checked": report.checked,
        "items": report.findings,
    }
    return Response(orjson.dumps(content, option=OPTIONS), media_type="application/json")
