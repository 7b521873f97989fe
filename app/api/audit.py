"""The route for the audit log: who did what, to what, from where."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.api.access import needs, tenant_of
from app.api.answer import JsonAnswer
from app.api.insights import UNAVAILABLE
from app.api.query import Moment, decoded_cursor, encoded_cursor, refuse_unknown_query
from app.api.routes import DirectRoute
from app.api.schemas import OPTIONS
from app.api.tasks import WRONG
from app.core.audit import Action, Entry
from app.core.keys import Scope
from app.models.audit import AuditFilter
from app.services.wiring import Services

router = APIRouter(tags=["audit"], route_class=DirectRoute)


class EntryView(BaseModel):
    """One thing that somebody did. `key_id` is null where no key was shown; then `key_name` says `anonymous`, or
    `command line`. `before` and `after` have what was changed, without secrets; null where there was or is nothing."""

    id: int
    at: datetime
    key_id: str | None
    key_name: str
    tenant: str | None
    address: str
    action: Action
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(BaseModel):
    """Entries, newest first. `next_cursor` is null on the last page."""

    items: list[EntryView]
    next_cursor: str | None


@router.get("/audit", response_class=Response, responses={200: {"model": AuditPage}, 422: WRONG[422], 503: UNAVAILABLE})
@needs(Scope.MANAGE)
async def read_audit_log(
    request: Request,
    action: Action | None = None,
    key: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9]{1,16}$", description="The id of a key.")] = None,
    target: Annotated[str | None, Query(max_length=255, description="As it is shown, like `task 17`.")] = None,
    since: Annotated[Moment | None, Query(description="At or after this moment.")] = None,
    until: Annotated[Moment | None, Query(description="Before this moment.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before.")] = None,
) -> Response:
    """What operators did, newest first. A key of a tenant sees what was done with keys of that tenant."""
    refuse_unknown_query(request, "action", "key", "target", "since", "until", "limit", "cursor")
    services: Services = request.app.state.services
    wanted = AuditFilter(action, key, target, since, until, tenant_of(request))
    before_id = None if cursor is None else decoded_cursor(cursor)
    found = await services.audit.search(wanted, limit + 1, before_id)
    next_cursor = encoded_cursor(found[limit - 1].id) if len(found) > limit else None
    content = {"items": [_view(entry) for entry in found[:limit]], "next_cursor": next_cursor}
    return JsonAnswer(orjson.dumps(content, option=OPTIONS))


def _view(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in EntryView.model_fields} | {
        "tenant": entry.tenant or None,
        "before": None if entry.before is None else orjson.Fragment(entry.before),
        "after": None if entry.after is None else orjson.Fragment(entry.after),
    }
