"""Statements for subscriptions to the ends of tasks, and for what was delivered to them."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, delete, exists, func, insert, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.task import Attempt, JsonText, Status
from app.core.webhook import End, Webhook
from app.models import dialects
from app.models.dialects import given_rows, whole
from app.models.tables import task_attempts, tasks, webhook_deliveries, webhooks

_FIELDS = tuple(webhooks.c[name] for name in Webhook.__dataclass_fields__)
_all = select(*_FIELDS).order_by(webhooks.c.created_at, webhooks.c.id)
_switched_on = _all.where(webhooks.c.switched_off_at.is_(None))
_given = given_rows("rows")
_ends = select(
    tasks.c.id,
    tasks.c.task_type,
    tasks.c.queue,
    tasks.c.status,
    tasks.c.tags,
    tasks.c.tenant,
    tasks.c.webhook_url.is_not(None),
).where(tasks.c.id.in_(select(whole(_given, "id")).select_from(_given)))

# For RETURNING of what ends tasks: the store looks once for each statement whether there is a subscription at all, so that
# the end of a task costs nothing more where there is none, and none is missed however lately it was made.
is_awaited: ColumnElement[bool] = or_(
    tasks.c.webhook_url.is_not(None),
    exists(select(literal_column("1")).select_from(webhooks).where(webhooks.c.switched_off_at.is_(None))),
)
"""Whether somebody may have to be told of the end of a task."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice of a subscription as its task is now. `subject` is the task that it tells of, None for a test and where that
    task was deleted; `result` and `error` are JSON text."""

    task_id: int
    event: str
    message_id: str
    subject: int | None
    status: Status
    attempts: int
    max_attempts: int
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    result: JsonText | None
    error: JsonText | None


_DELIVERY = (
    tasks.c.id,
    webhook_deliveries.c.event,
    webhook_deliveries.c.message_id,
    tasks.c.parent_id,
    *(tasks.c[name] for name in ("status", "attempts", "max_attempts", "created_at", "scheduled_at")),
    *(tasks.c[name] for name in ("started_at", "finished_at", "result", "error")),
)
_deliveries = select(*_DELIVERY).join_from(webhook_deliveries, tasks, tasks.c.id == webhook_deliveries.c.task_id)


async def reserve(connection: AsyncConnection, tenant: str) -> None:
    """Have the number of a tenant's subscriptions to ourselves until the transaction ends."""
    await dialects.reserve(connection, 2, [tenant])


async def add(connection: AsyncConnection, webhook: Webhook) -> None:
    """Store a new subscription."""
    await connection.execute(insert(webhooks).values(asdict(webhook)))


async def count(connection: AsyncConnection, tenant: str) -> int:
    """How many a tenant has, or (empty) nobody in particular."""
    statement = select(func.count()).select_from(webhooks).where(webhooks.c.tenant == tenant)
    return await connection.scalar(statement) or 0


async def found(connection: AsyncConnection, tenant: str = "") -> list[Webhook]:
    """Every subscription, oldest first; of one tenant, if it is named."""
    statement = _all.where(webhooks.c.tenant == tenant) if tenant else _all
    return [Webhook(*row) for row in await connection.execute(statement)]


async def get(connection: AsyncConnection, webhook_id: str, tenant: str = "") -> Webhook | None:
    """One subscription; None too where it is not that tenant's."""
    statement = select(*_FIELDS).where(webhooks.c.id == webhook_id)
    row = (await connection.execute(statement.where(webhooks.c.tenant == tenant) if tenant else statement)).first()
    return None if row is None else Webhook(*row)


async def locked(connection: AsyncConnection, ids: Collection[str]) -> list[Webhook]:
    """These, as far as they are there, locked until the transaction ends, in the order of their ids."""
    statement = select(*_FIELDS).where(webhooks.c.id.in_(ids)).order_by(webhooks.c.id)
    return [Webhook(*row) for row in await connection.execute(statement.with_for_update(key_share=True))]


async def save(connection: AsyncConnection, webhook: Webhook) -> None:
    """Overwrite what can change of a subscription."""
    values = asdict(webhook)
    del values["id"], values["tenant"], values["created_at"]
    await connection.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(values))


async def remove(connection: AsyncConnection, webhook_id: str) -> None:
    """Forget a subscription. What is stored for it already is delivered still."""
    await connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


async def switched_on(connection: AsyncConnection) -> list[Webhook]:
    """The subscriptions that are told of what ends now."""
    return [Webhook(*row) for row in await connection.execute(_switched_on)]


async def ends(connection: AsyncConnection, ids: Collection[int]) -> list[End]:
    """What says who is told of these tasks, without their payloads and results."""
    rows = orjson.dumps([{"id": id_} for id_ in ids]).decode()
    return [End(*row) for row in await connection.execute(_ends, {"rows": rows})]


async def add_deliveries(connection: AsyncConnection, new: Sequence[tuple[int, str, str, str]]) -> None:
    """Note of new notices, (task id, subscription, event, message id), to whom they go."""
    names = ("task_id", "webhook_id", "event", "message_id")
    await connection.execute(insert(webhook_deliveries), [dict(zip(names, row, strict=True)) for row in new])


async def receivers(connection: AsyncConnection, task_ids: Collection[int]) -> dict[int, Webhook]:
    """The subscriptions that these notices go to, as far as they are there, by the notice's id."""
    statement = (
        select(webhook_deliveries.c.task_id, *_FIELDS)
        .join_from(webhook_deliveries, webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)
        .where(webhook_deliveries.c.task_id.in_(task_ids))
    )
    return {row[0]: Webhook(*row[1:]) for row in await connection.execute(statement)}


async def deliveries(
    connection: AsyncConnection, webhook_id: str, statuses: Collection[Status], limit: int, before_id: int | None
) -> list[Delivery]:
    """Up to `limit` notices of a subscription, newest first; empty `statuses` are all."""
    statement = _deliveries.where(webhook_deliveries.c.webhook_id == webhook_id)
    if statuses:
        statement = statement.where(tasks.c.status.in_(statuses))
    if before_id is not None:
        statement = statement.where(webhook_deliveries.c.task_id < before_id)
    rows = await connection.execute(statement.order_by(webhook_deliveries.c.task_id.desc()).limit(limit))
    return [Delivery(*row) for row in rows]


async def delivery(connection: AsyncConnection, webhook_id: str, task_id: int) -> Delivery | None:
    """One notice of a subscription."""
    of_both = (webhook_deliveries.c.webhook_id == webhook_id, webhook_deliveries.c.task_id == task_id)
    row = (await connection.execute(_deliveries.where(*of_both))).first()
    return None if row is None else Delivery(*row)


_ATTEMPT = tuple(task_attempts.c[name] for name in Attempt.__dataclass_fields__)


async def last_attempts(connection: AsyncConnection, task_ids: Collection[int]) -> dict[int, Attempt]:
    """The last attempt of each of these tasks that failed; tasks without any are missing."""
    newest = (
        select(task_attempts.c.task_id, func.max(task_attempts.c.lease).label("lease"))
        .where(task_attempts.c.task_id.in_(task_ids), task_attempts.c.error.is_not(None))
        .group_by(task_attempts.c.task_id)
        .subquery()
    )
    statement = select(*_ATTEMPT).join_from(
        newest,
        task_attempts,
        (task_attempts.c.task_id == newest.c.task_id) & (task_attempts.c.lease == newest.c.lease),
    )
    return {row[0]: Attempt(*row) for row in await connection.execute(statement)}


async def counts(connection: AsyncConnection) -> tuple[int, int, int, int]:
    """How many are on and well, on and failing, switched off by a person, and switched off for their failures."""
    on, by_hand = webhooks.c.switched_off_at.is_(None), webhooks.c.switched_off_reason.is_(None)
    well = webhooks.c.failing_since.is_(None)
    kinds: tuple[Any, ...] = (on & well, on & ~well, ~on & by_hand, ~by_hand)
    columns = [func.count().filter(kind) for kind in kinds]
    return tuple((await connection.execute(select(*columns).select_from(webhooks))).one())
