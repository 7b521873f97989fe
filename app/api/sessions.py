"""Routes to sign in with a key, and out again: for people at a browser. Programs send their key with each call."""

from datetime import datetime

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api import cookie
from app.api.access import entrance, refusal
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.errors import Problem, problem
from app.api.openapi import json_body
from app.api.origin import Origins
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, SignIn
from app.api.tasks import WRONG
from app.core.keys import Scope
from app.services.sessions import Guest
from app.services.wiring import Services

router = APIRouter(tags=["session"], route_class=DirectRoute)

PATH = "/session"
MOST_BYTES = 4096
"""Of what somebody sends who has not shown a key yet: a key has about fifty."""
FOREIGN: dict[int | str, dict[str, object]] = {
    403: {"model": Problem, "description": "A page of another origin asks."},
    429: {"model": Problem, "description": "Too many requests; try again after Retry-After seconds."},
}
NO_KEY: dict[int | str, dict[str, object]] = {401: {"model": Problem, "description": "The key opens nothing."}}


class KeyInUse(BaseModel):
    """The key that somebody signed in with."""

    id: str
    name: str
    scopes: list[Scope]
    tenant: str | None = Field(description="Whose tasks and files it sees; null for everyone's.")


class SessionView(BaseModel):
    """Whether somebody is signed in, and needs to be."""

    needed: bool = Field(description="Whether calls need a key, or somebody signed in.")
    key: KeyInUse | None = Field(description="What the caller signed in with; null for who has not.")
    ends_at: datetime | None = Field(description="When the caller has to sign in again, at the latest.")


@router.get(PATH, response_class=Response, responses={200: {"model": SessionView}, 429: FOREIGN[429], 503: WRONG[503]})
@entrance
async def read_session(request: Request) -> Response:
    """Who is signed in."""
    services, origins = _services(request), _origins(request)
    token = cookie.shown(request.scope, origins.over_tls(request.scope))
    guest = None if token is None else await services.sessions.holder(token)
    return _answer(request, guest)


@router.post(
    PATH,
    response_class=Response,
    responses={200: {"model": SessionView}, **NO_KEY, **FOREIGN, **WRONG},
    openapi_extra=json_body("SignIn"),
)
@entrance
async def sign_in(request: Request) -> Response:
    """Sign in with a key: the answer sets a cookie, which stands for the key until `ends_at`, until nobody used it for half an
    hour, or until the key is revoked. Calls that change something need `X-Same-Origin: 1` beside the cookie."""
    services = _services(request)
    why = _origins(request).crossing(request.scope)
    if why is not None:
        return problem(request, 403, "foreign-origin", why)
    asked = await read_json(request, SignIn, MOST_BYTES, services.settings.max_json_depth)
    guest = await services.sessions.begin(asked.key)
    return refusal(request) if guest is None else _answer(request, guest)


@router.delete(PATH, status_code=204, response_class=Response, responses={**FOREIGN, 503: WRONG[503]})
@entrance
async def sign_out(request: Request) -> Response:
    """Sign out: the cookie opens nothing any more, here or elsewhere. Fine for who has not signed in."""
    origins = _origins(request)
    secure = origins.over_tls(request.scope)
    token = cookie.shown(request.scope, secure)
    if token is not None:
        why = origins.unproven(request.scope)
        if why is not None:
            return problem(request, 403, "foreign-origin", why)
        await _services(request).sessions.end(token)
    answer = Response(status_code=204)
    answer.raw_headers.append(cookie.line("", 0, secure))
    return answer


def _answer(request: Request, guest: Guest | None) -> Response:
    services = _services(request)
    key = None if guest is None else guest.key
    shown = None if key is None else {name: getattr(key, name) for name in KeyInUse.model_fields}
    view = {
        "needed": services.ring.on,
        "key": None if shown is None or key is None else shown | {"tenant": key.tenant or None},
        "ends_at": None if guest is None else guest.session.ends_at,
    }
    headers = []
    if guest is not None and guest.token is not None:
        seconds = guest.session.seconds
        headers = [cookie.line(guest.token, seconds, _origins(request).over_tls(request.scope))]
    return JsonAnswer(orjson.dumps(view, option=OPTIONS), 200, *headers)


def _origins(request: Request) -> Origins:
    origins: Origins = request.app.state.origins
    return origins


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
