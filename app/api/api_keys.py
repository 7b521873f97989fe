"""Routes for API keys: for keys that may do everything."""

from datetime import datetime, timedelta
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from app.api.access import CALLER, actor_of, needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.errors import Problem
from app.api.openapi import json_body
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, KeyRequest
from app.api.tasks import MISSING, WRONG
from app.core.errors import Forbidden
from app.core.keys import ApiKey, Scope
from app.services.wiring import Services

router = APIRouter(tags=["keys"], route_class=DirectRoute)

KeyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,16}$", description="What stands before the dot of a key.")]
TOO_MANY: dict[int | str, dict[str, object]] = {
    409: {"model": Problem, "description": "The tenant has as many keys as it may."}
}
NO_KEY = {**MISSING, 404: {"model": Problem, "description": "There is no such key."}}


class KeyView(BaseModel):
    """A key, without its secret. `last_used_at` may be a minute behind."""

    id: str
    name: str
    scopes: list[Scope]
    tenant: str | None = Field(description="Whose tasks and files it sees; null for everyone's.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKey(KeyView):
    """A key just made."""

    key: str = Field(description="What to send as the bearer token. It is not shown again.")


class KeyList(BaseModel):
    """Every key, oldest first; the revoked and expired too."""

    items: list[KeyView]


@router.post(
    "/api-keys",
    status_code=201,
    response_class=Response,
    responses={201: {"model": NewKey}, **WRONG, **TOO_MANY},
    openapi_extra=json_body("KeyRequest"),
)
@needs(Scope.ADMIN)
async def create_key(request: Request) -> Response:
    """Make a key. One of a tenant makes keys of that tenant alone, up to MAX_KEYS_PER_TENANT. The first of all is made where
    the service runs, by `python -m app.keys`."""
    services = _services(request)
    asked = await read_json(request, KeyRequest, services.settings.max_body_bytes, services.settings.max_json_depth)
    tenant = _tenant(request, asked.tenant)
    expires_in = None if asked.expires_in_seconds is None else timedelta(seconds=asked.expires_in_seconds)
    key, token = await services.keys.create(asked.name, asked.scopes, tenant, expires_in, actor_of(request))
    await services.ring.load()
    location = (b"location", f"/api-keys/{key.id}".encode())
    return JsonAnswer(orjson.dumps(_view(key) | {"key": token}, option=OPTIONS), 201, location)


def _tenant(request: Request, asked: str | None) -> str:
    """Whose the new key is. Raises Forbidden."""
    if CALLER not in request.scope:
        raise Forbidden("The first key is made where the service runs: python -m app.keys create NAME --scopes admin.")
    own = tenant_of(request)
    if own and asked not in (None, own):
        raise Forbidden(f"Your key is for tenant {own}: it makes no keys for others.")
    return own or asked or ""


@router.get("/api-keys", response_class=Response, responses={200: {"model": KeyList}, 503: WRONG[503]})
@needs(Scope.ADMIN)
async def list_keys(request: Request) -> Response:
    """Every key, without its secret."""
    keys = await _services(request).keys.listed(tenant_of(request))
    return JsonAnswer(orjson.dumps({"items": [_view(key) for key in keys]}, option=OPTIONS))


@router.delete("/api-keys/{key_id}", status_code=204, response_class=Response, responses={**NO_KEY})
@needs(Scope.ADMIN)
async def revoke_key(request: Request, key_id: KeyId) -> Response:
    """Revoke a key. Other API processes refuse it within two seconds."""
    services = _services(request)
    await services.keys.revoke(key_id, tenant_of(request), actor_of(request))
    await services.ring.load()
    return Response(status_code=204)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _view(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyView.model_fields} | {"tenant": key.tenant or None}
