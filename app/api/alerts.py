"""Routes for alerts: what is wrong now, what was, who is told; silences, and a test of the channels."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.access import actor_of, needs
from app.api.answer import JsonAnswer
from app.api.body import read_json
from app.api.errors import Problem
from app.api.insights import UNAVAILABLE
from app.api.openapi import json_body
from app.api.query import Name, decoded_cursor, encoded_cursor, refuse_unknown_query
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS, SilenceRequest
from app.api.tasks import WRONG
from app.core.alerts import RULE_NAMES, RULES, AlertState, Kind, Silence
from app.core.audit import Action, Deed
from app.core.diagnosis import Severity
from app.core.errors import InvalidRequest
from app.core.keys import Scope
from app.models.alerts import AlertFilter
from app.services.alerts import AlertReport
from app.services.wiring import Services

router = APIRouter(tags=["alerts"], route_class=DirectRoute)

ChannelName = Literal["webhook", "slack", "mail"]
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is no such silence."}}
NO_CHANNEL: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "The channel is not set."}}


class AlertDeliveryView(BaseModel):
    """One channel that was told, or is to be. `state` is `waiting`, `sent` or `given_up`; `due_at` is when it is tried
    next, `error` what came of the last try."""

    kind: Kind
    channel: str
    state: str
    attempts: int
    due_at: datetime
    error: str | None
    created_at: datetime
    ended_at: datetime | None


class AlertView(BaseModel):
    """One rule about one subject: a queue, a breaker, a worker; empty is the whole service. `holding` is trouble that has not
    lasted long enough to fire; `calm_since` is set while it fires and the trouble is gone. `told_at` is null while nobody was
    told: there is no channel, or a silence."""

    id: int
    rule: str
    subject: str
    queue: str | None
    severity: Severity
    state: AlertState
    what: str
    value: float
    threshold: float
    began_at: datetime
    fired_at: datetime | None
    calm_since: datetime | None
    cleared_at: datetime | None
    told_at: datetime | None
    silenced: bool
    deliveries: list[AlertDeliveryView]


class RuleView(BaseModel):
    """One rule; `off` where ALERT_RULES_OFF names it."""

    name: str
    severity: Severity
    about: str
    off: bool


class AlertList(BaseModel):
    """What holds and fires now, oldest first; the channels that this process can tell, and the rules that there are."""

    items: list[AlertView]
    channels: list[ChannelName]
    rules: list[RuleView]


class AlertPage(BaseModel):
    """Alerts that have fired, newest first. `next_cursor` is null on the last page."""

    items: list[AlertView]
    next_cursor: str | None


class SilenceView(BaseModel):
    """A silence that lasts. No `rule` or no `queue` means any."""

    id: int
    rule: str | None
    queue: str | None
    ends_at: datetime
    note: str
    created_at: datetime
    created_by: str


class SilenceList(BaseModel):
    """The silences that last, in the order in which they were made."""

    items: list[SilenceView]


class TriedView(BaseModel):
    """One channel; `error` is null where it took the test."""

    channel: str
    error: str | None


class TriedList(BaseModel):
    """What came of the test, channel by channel."""

    items: list[TriedView]


@router.get("/alerts", response_class=Response, responses={200: {"model": AlertList}, 503: UNAVAILABLE})
@needs(Scope.READ, whole=True)
async def list_alerts(request: Request) -> Response:
    """What is wrong now, by the rules of alerts."""
    services = _services(request)
    off = services.settings.alert_rules_off
    rules = [
        {"name": rule.name, "severity": rule.severity, "about": rule.about, "off": rule.name in off} for rule in RULES
    ]
    items = [_view(report) for report in await services.alerts.listed()]
    return _answer({"items": items, "channels": services.alerts.channels, "rules": rules})


@router.get(
    "/alerts/history",
    response_class=Response,
    responses={200: {"model": AlertPage}, 422: WRONG[422], 503: UNAVAILABLE},
)
@needs(Scope.READ, whole=True)
async def list_past_alerts(
    request: Request,
    rule: Name | None = None,
    queue: Name | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before.")] = None,
) -> Response:
    """Alerts that fire or have fired, newest first, with what was told of each."""
    refuse_unknown_query(request, "rule", "queue", "limit", "cursor")
    before_id = None if cursor is None else decoded_cursor(cursor)
    found = await _services(request).alerts.history(AlertFilter(rule, queue), limit + 1, before_id)
    next_cursor = encoded_cursor(found[limit - 1].alert.id) if len(found) > limit else None
    return _answer({"items": [_view(report) for report in found[:limit]], "next_cursor": next_cursor})


@router.get("/alerts/silences", response_class=Response, responses={200: {"model": SilenceList}, 503: UNAVAILABLE})
@needs(Scope.READ, whole=True)
async def list_silences(request: Request) -> Response:
    """The silences that last."""
    return _answer({"items": [_silence_view(one) for one in await _services(request).alerts.silences()]})


@router.post(
    "/alerts/silences",
    status_code=201,
    response_class=Response,
    responses={201: {"model": SilenceView}, **WRONG},
    openapi_extra=json_body("SilenceRequest"),
)
@needs(Scope.MANAGE, whole=True)
async def create_silence(request: Request) -> Response:
    """Tell nobody for so long that these alerts fire. What still fires when it ends is told then."""
    services = _services(request)
    asked = await read_json(request, SilenceRequest, services.settings.max_body_bytes, services.settings.max_json_depth)
    _ensure_meant(asked)
    made = await services.alerts.silence(
        asked.rule, asked.queue, timedelta(seconds=asked.seconds), asked.note, actor_of(request)
    )
    return _answer(_silence_view(made), 201)


def _ensure_meant(asked: SilenceRequest) -> None:
    """Raises InvalidRequest where nothing was asked for: an empty body must not silence everything."""
    if asked.rule is not None and asked.rule not in RULE_NAMES:
        raise _wrong("rule", f"There is no rule {asked.rule[:64]}. Known: {', '.join(RULE_NAMES)}.")
    if (asked.rule is None and asked.queue is None) != asked.all:
        raise _wrong("all", "Say which alerts are meant by rule or queue, or say all.")


def _wrong(place: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, [{"location": ["body", place], "message": message, "type": "value_error"}])


@router.delete(
    "/alerts/silences/{silence_id}",
    status_code=204,
    response_class=Response,
    responses={**MISSING, 422: WRONG[422], 503: UNAVAILABLE},
)
@needs(Scope.MANAGE, whole=True)
async def end_silence(request: Request, silence_id: int) -> Response:
    """End a silence now. What still fires is told."""
    await _services(request).alerts.end_silence(silence_id, actor_of(request))
    return Response(status_code=204)


@router.post(
    "/alerts/test",
    response_class=Response,
    responses={200: {"model": TriedList}, **NO_CHANNEL, 422: WRONG[422], 503: UNAVAILABLE},
)
@needs(Scope.MANAGE, whole=True)
async def try_channels(
    request: Request, channel: Annotated[ChannelName | None, Query(description="This one alone.")] = None
) -> Response:
    """Send a test over every channel, at once, and say what came of it. Up to a minute for each."""
    refuse_unknown_query(request, "channel")
    services = _services(request)
    tried = await services.alerts.test(channel)
    after = {one.channel: one.error or "took it" for one in tried}
    await services.audit.add(actor_of(request), Deed(Action.ALERTS_TEST, "alerts", None, after))
    return _answer({"items": [{"channel": one.channel, "error": one.error} for one in tried]})


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


_ALERT = [name for name in AlertView.model_fields if name not in ("silenced", "deliveries")]


def _view(report: AlertReport) -> dict[str, Any]:
    return {name: getattr(report.alert, name) for name in _ALERT} | {
        "silenced": report.silenced,
        "deliveries": [
            {name: getattr(one, name) for name in AlertDeliveryView.model_fields} for one in report.deliveries
        ],
    }


def _silence_view(silence: Silence) -> dict[str, Any]:
    return {name: getattr(silence, name) for name in SilenceView.model_fields}


def _answer(content: object, status: int = 200) -> Response:
    return JsonAnswer(orjson.dumps(content, option=OPTIONS), status)
