"""Routes for subscriptions to the ends of tasks: who is told, what was delivered, and trying it out."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from app.api.access import actor_of, needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.errors import Problem
from app.api.openapi import json_body
from app.api.query import decoded_cursor, encoded_cursor, refuse_unknown_query
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, WebhookPatch, WebhookRequest
from app.api.tasks import WRONG
from app.core.errors import Forbidden, InvalidRequest
from app.core.keys import Scope
from app.core.task import LARGEST_INTEGER, Status
from app.core.webhook import Webhook
from app.services.webhooks import DeliveryReport
from app.services.wiring import Services

router = APIRouter(tags=["webhooks"], route_class=DirectRoute)

WebhookId = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,16}$", description="The `id` of a subscription.")]
DeliveryId = Annotated[int, Path(ge=1, le=LARGEST_INTEGER, description="The `task_id` of a delivery.")]
NAMES = ("events", "task_types", "queues", "tags", "secrets")
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such subscription, or no such delivery of it."},
    422: WRONG[422],
    503: WRONG[503],
}
TOO_MANY: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "There are as many subscriptions as there may be."}
}
STILL_TRIED: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "The delivery is being tried as it is."}
}


class WebhookView(BaseModel):
    """A subscription. Secrets are names; what they stand for the workers alone know."""

    id: str
    url: str
    description: str | None
    events: list[str]
    task_types: list[str]
    queues: list[str]
    tags: list[str]
    secrets: list[str]
    tenant: str | None = Field(description="Whose ends it is told of; null for everyone's.")
    enabled: bool = Field(description="Whether it is told of what ends now.")
    failures: int = Field(description="Attempts that failed in a row, over all its notices.")
    failing_since: datetime | None
    last_error: str | None
    switched_off_at: datetime | None
    switched_off_reason: str | None = Field(description="Null where a person switched it off.")
    created_at: datetime


class WebhookList(BaseModel):
    """Every subscription, oldest first."""

    items: list[WebhookView]


class DeliveryView(BaseModel):
    """One notice, which is a task: `task_id`. `status_code`, `error`, `attempted_at` and `duration_seconds` are of its last
    attempt that ended; `subject_id` is the task that it tells of."""

    task_id: int
    event: str
    message_id: str
    subject_id: int | None
    status: Status
    attempts: int
    max_attempts: int
    status_code: int | None
    error: str | None
    attempted_at: datetime | None
    duration_seconds: float | None
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class DeliveryPage(BaseModel):
    """Deliveries, newest first. `next_cursor` is null on the last page."""

    items: list[DeliveryView]
    next_cursor: str | None


@router.post(
    "/webhooks",
    status_code=201,
    response_class=Response,
    responses={201: {"model": WebhookView}, **WRONG, **TOO_MANY},
    openapi_extra=json_body("WebhookRequest"),
)
@needs(Scope.MANAGE)
async def create_webhook(request: Request) -> Response:
    """Tell a URL, by a signed POST, of every task that ends from now on and fits. One of a tenant is told of that tenant's
    alone."""
    services = _services(request)
    asked = await read_json(request, WebhookRequest, services.settings.max_body_bytes, services.settings.max_json_depth)
    fields = {name: tuple(map(str, getattr(asked, name))) for name in NAMES}
    webhook = await services.webhooks.create(
        _tenant(request, asked.tenant), asked.url, actor_of(request), description=asked.description, **fields
    )
    location = (b"location", f"/webhooks/{webhook.id}".encode())
    return JsonAnswer(orjson.dumps(_view(webhook), option=OPTIONS), 201, location)


def _tenant(request: Request, asked: str | None) -> str:
    """Whose ends the new one is told of. Raises Forbidden."""
    own = tenant_of(request)
    if own and asked not in (None, own):
        raise Forbidden(f"Your key is for tenant {own}: it hears of no others.")
    return own or asked or ""


@router.get("/webhooks", response_class=Response, responses={200: {"model": WebhookList}, 503: WRONG[503]})
@needs(Scope.READ)
async def list_webhooks(request: Request) -> Response:
    """Every subscription, and how its receiver is."""
    found = await _services(request).webhooks.listed(tenant_of(request))
    return _answer({"items": [_view(webhook) for webhook in found]})


@router.get("/webhooks/{webhook_id}", response_class=Response, responses={200: {"model": WebhookView}, **MISSING})
@needs(Scope.READ)
async def read_webhook(request: Request, webhook_id: WebhookId) -> Response:
    """One subscription."""
    return _answer(_view(await _services(request).webhooks.get(webhook_id, tenant_of(request))))


@router.patch(
    "/webhooks/{webhook_id}",
    response_class=Response,
    responses={200: {"model": WebhookView}, **MISSING, **WRONG},
    openapi_extra=json_body("WebhookPatch"),
)
@needs(Scope.MANAGE)
async def change_webhook(request: Request, webhook_id: WebhookId) -> Response:
    """Change a subscription, or switch it on or off. What is left out stays."""
    services = _services(request)
    patch = await read_json(request, WebhookPatch, services.settings.max_body_bytes, services.settings.max_json_depth)
    values = patch.model_dump(include=patch.model_fields_set)
    if not values:
        raise _wrong([], "There is nothing to change.")
    for name, value in values.items():
        if value is None and name != "description":
            raise _wrong([name], f"{name} must not be null.")
    enabled = values.pop("enabled", None)
    values |= {name: tuple(map(str, values[name])) for name in NAMES if name in values}
    webhook = await services.webhooks.change(
        webhook_id, tenant_of(request), values, enabled=enabled, by=actor_of(request)
    )
    return _answer(_view(webhook))


def _wrong(place: list[str], message: str) -> InvalidRequest:
    return InvalidRequest(message, [{"location": ["body", *place], "message": message, "type": "value_error"}])


@router.delete("/webhooks/{webhook_id}", status_code=204, response_class=Response, responses={**MISSING})
@needs(Scope.MANAGE)
async def delete_webhook(request: Request, webhook_id: WebhookId) -> Response:
    """End a subscription. What has ended before is told still."""
    await _services(request).webhooks.remove(webhook_id, tenant_of(request), actor_of(request))
    return Response(status_code=204)


@router.post(
    "/webhooks/{webhook_id}/test",
    status_code=202,
    response_class=Response,
    responses={202: {"model": DeliveryView}, **MISSING},
)
@needs(Scope.MANAGE)
async def test_webhook(request: Request, webhook_id: WebhookId) -> Response:
    """Send it a `webhook.test`, signed and tried again like any notice. Its deliveries say what came of it."""
    report = await _services(request).webhooks.ping(webhook_id, tenant_of(request), actor_of(request))
    return _answer(_delivery(report), 202)


@router.get(
    "/webhooks/{webhook_id}/deliveries", response_class=Response, responses={200: {"model": DeliveryPage}, **MISSING}
)
@needs(Scope.READ)
async def list_deliveries(
    request: Request,
    webhook_id: WebhookId,
    status: Annotated[list[Status] | None, Query(description="Only deliveries in one of these states.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before.")] = None,
) -> Response:
    """What was sent to it, and what came of it, newest first; as long as finished tasks are kept."""
    refuse_unknown_query(request, "status", "limit", "cursor")
    before_id = None if cursor is None else decoded_cursor(cursor)
    webhooks, tenant = _services(request).webhooks, tenant_of(request)
    found = await webhooks.deliveries(webhook_id, tenant, limit + 1, statuses=status or (), before_id=before_id)
    next_cursor = encoded_cursor(found[limit - 1].delivery.task_id) if len(found) > limit else None
    return _answer({"items": [_delivery(report) for report in found[:limit]], "next_cursor": next_cursor})


@router.post(
    "/webhooks/{webhook_id}/deliveries/{task_id}/redeliver",
    status_code=202,
    response_class=Response,
    responses={202: {"model": DeliveryView}, **MISSING, **STILL_TRIED},
)
@needs(Scope.MANAGE)
async def redeliver(request: Request, webhook_id: WebhookId, task_id: DeliveryId) -> Response:
    """Send a notice once more that arrived or was given up: the same message under the same `webhook-id`, to where the
    subscription leads now."""
    report = await _services(request).webhooks.redeliver(webhook_id, task_id, tenant_of(request), actor_of(request))
    return _answer(_delivery(report), 202)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _view(webhook: Webhook) -> dict[str, object]:
    return {name: getattr(webhook, name) for name in WebhookView.model_fields} | {"tenant": webhook.tenant or None}


def _delivery(report: DeliveryReport) -> dict[str, object]:
    one = report.delivery
    return {
        "task_id": one.task_id,
        "event": one.event,
        "message_id": one.message_id,
        "subject_id": one.subject,
        "status": one.status,
        "attempts": one.attempts,
        "max_attempts": one.max_attempts,
        "status_code": report.status_code,
        "error": report.error,
        "attempted_at": report.attempted_at,
        "duration_seconds": report.duration_seconds,
        "next_attempt_at": report.next_attempt_at,
        "created_at": one.created_at,
        "finished_at": one.finished_at,
    }


def _answer(content: object, status: int = 200) -> Response:
    return JsonAnswer(orjson.dumps(content, option=OPTIONS), status)
