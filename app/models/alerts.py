"""Statements for alerts, for what channels are told of them, and for silences."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, literal_column, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.alerts import Alert, AlertState, Kind, Silence
from app.core.notices import BACKOFF, CLAIMED, Notice
from app.models import dialects, tables
from app.models.dialects import insert_or
from app.models.tables import alert_notices, alert_silences, alerts, tasks, turns

_ALERT = tuple(alerts.c[name] for name in Alert.__dataclass_fields__)
_SILENCE = tuple(alert_silences.c[name] for name in Silence.__dataclass_fields__)
_NOTICE = tuple(alert_notices.c[name] for name in Notice.__dataclass_fields__)
_ACTIVE: ColumnElement[bool] = literal_column(tables.ACTIVE)
_PAST: ColumnElement[bool] = literal_column(tables.PAST)
_UNSENT: ColumnElement[bool] = literal_column(tables.UNSENT)
_CEILING = timedelta(seconds=BACKOFF.ceiling_seconds)


async def due_turn(connection: AsyncConnection, name: str, now: datetime, every: timedelta) -> bool:
    """Whether nobody has taken this turn for so long."""
    taken_at = await connection.scalar(select(turns.c.taken_at).where(turns.c.name == name))
    return taken_at is None or not now - every < taken_at <= now


async def take_turn(connection: AsyncConnection, name: str, now: datetime, every: timedelta) -> bool:
    """Take the turn unless another process has within `every`; of several that try at once one gets it. A turn that lies
    ahead is from before the clock was set back."""
    statement = insert_or(turns).values(name=name, taken_at=now)
    free = or_(turns.c.taken_at <= now - every, turns.c.taken_at > now)
    taken = statement.on_conflict_do_update(index_elements=["name"], set_={"taken_at": now}, where=free)
    return (await connection.execute(taken)).rowcount == 1


async def reserve(connection: AsyncConnection) -> None:
    """Have the active alerts to ourselves until the transaction ends."""
    await dialects.reserve(connection, 2, ["alerts"])


async def active(connection: AsyncConnection) -> list[Alert]:
    """Every alert that holds or fires, the oldest first."""
    return [Alert(*row) for row in await connection.execute(select(*_ALERT).where(_ACTIVE).order_by(alerts.c.id))]


async def add(connection: AsyncConnection, alert: Alert) -> int | None:
    """Store a new alert and return its id; None where there is an active one of the same rule and subject."""
    values = {name: value for name, value in asdict(alert).items() if name != "id"}
    statement = insert_or(alerts).values(values).on_conflict_do_nothing().returning(alerts.c.id)
    id_: int | None = await connection.scalar(statement)
    return id_


async def save(connection: AsyncConnection, alert: Alert, before: AlertState) -> bool:
    """Overwrite an alert that is still in the state `before`."""
    values = {name: value for name, value in asdict(alert).items() if name != "id"}
    statement = update(alerts).where(alerts.c.id == alert.id, alerts.c.state == before).values(values)
    return (await connection.execute(statement)).rowcount == 1


async def forget(connection: AsyncConnection, ids: Collection[int]) -> None:
    """Drop alerts that never fired."""
    await connection.execute(delete(alerts).where(alerts.c.id.in_(ids), alerts.c.state == AlertState.HOLDING))


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are meant; None is any."""

    rule: str | None = None
    queue: str | None = None


async def history(
    connection: AsyncConnection, wanted: AlertFilter, limit: int, before_id: int | None = None
) -> list[Alert]:
    """Up to `limit` alerts that have fired, newest first; those that fire now among them."""
    statement = select(*_ALERT).where(alerts.c.state != AlertState.HOLDING)
    if wanted.rule is not None:
        statement = statement.where(alerts.c.rule == wanted.rule)
    if wanted.queue is not None:
        statement = statement.where(alerts.c.queue == wanted.queue)
    if before_id is not None:
        statement = statement.where(alerts.c.id < before_id)
    return [Alert(*row) for row in await connection.execute(statement.order_by(alerts.c.id.desc()).limit(limit))]


async def prune(connection: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete up to `limit` alerts that cleared before `before`, with their notices. Returns how many."""
    old = select(alerts.c.id).where(_PAST, alerts.c.cleared_at < before).order_by(alerts.c.cleared_at).limit(limit)
    return (await connection.execute(delete(alerts).where(alerts.c.id.in_(old.scalar_subquery())))).rowcount


async def dead_letters_since(connection: AsyncConnection, since: datetime) -> int:
    """How many dead letters failed after `since`. Reads what failed after it."""
    finished: ColumnElement[bool] = literal_column(tables.FINISHED)
    failed: ColumnElement[bool] = tasks.c.status == literal_column("'failed'")
    statement = select(func.count()).select_from(tasks).where(finished, failed, tasks.c.finished_at > since)
    return await connection.scalar(statement.where(tasks.c.resolved_at.is_(None))) or 0


# Notices


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of telling one channel: `state` is waiting, sent or given_up; `error` that of the last try."""

    alert_id: int
    kind: Kind
    channel: str
    state: str
    attempts: int
    due_at: datetime
    error: str | None
    created_at: datetime
    ended_at: datetime | None


_DELIVERY = tuple(alert_notices.c[name] for name in Delivery.__dataclass_fields__)


async def add_notices(
    connection: AsyncConnection, alert_id: int, kind: Kind, channels: Iterable[str], told: str, now: datetime
) -> None:
    """Have each of the channels told."""
    shared = {"alert_id": alert_id, "kind": kind, "told": told, "state": "waiting", "due_at": now, "created_at": now}
    await connection.execute(insert(alert_notices), [shared | {"channel": channel} for channel in channels])


async def channels_told(connection: AsyncConnection, alert_id: int) -> list[str]:
    """The channels that were given this alert to tell."""
    statement = select(alert_notices.c.channel).where(alert_notices.c.alert_id == alert_id)
    return list(await connection.scalars(statement.distinct().order_by(alert_notices.c.channel)))


async def deliveries(connection: AsyncConnection, alert_ids: Collection[int]) -> list[Delivery]:
    """What was told of these alerts, or is to be, the oldest first."""
    statement = select(*_DELIVERY).where(alert_notices.c.alert_id.in_(alert_ids)).order_by(alert_notices.c.id)
    return [Delivery(*row) for row in await connection.execute(statement)]


def _free(now: datetime) -> ColumnElement[bool]:
    """Nobody sends it now. A claim that ends later than any does is from before the clock was set back."""
    until = alert_notices.c.claimed_until
    return or_(until.is_(None), until <= now, until > now + CLAIMED)


async def unsent(connection: AsyncConnection, channels: Collection[str], now: datetime, limit: int) -> list[Notice]:
    """Up to `limit` notices that are due and nobody sends now, oldest first; of one alert and channel the first alone, so
    that nobody hears of an end before the beginning."""
    earlier = alert_notices.alias("earlier")
    first = not_(
        select(earlier.c.id)
        .where(
            earlier.c.alert_id == alert_notices.c.alert_id,
            earlier.c.channel == alert_notices.c.channel,
            earlier.c.state == "waiting",
            earlier.c.id < alert_notices.c.id,
        )
        .exists()
    )
    due = or_(alert_notices.c.due_at <= now, alert_notices.c.due_at > now + _CEILING)
    mine = alert_notices.c.channel.in_(channels)
    statement = select(*_NOTICE).where(_UNSENT, due, mine, _free(now), first)
    return [Notice(*row) for row in await connection.execute(statement.order_by(alert_notices.c.id).limit(limit))]


async def claim(connection: AsyncConnection, notice: Notice, now: datetime) -> Notice | None:
    """The right to send it until CLAIMED from now, under a new lease; None if somebody else was first."""
    values = {"lease": notice.lease + 1, "attempts": notice.attempts + 1, "claimed_until": now + CLAIMED}
    statement = update(alert_notices).where(
        alert_notices.c.id == notice.id, alert_notices.c.lease == notice.lease, _UNSENT, _free(now)
    )
    row = (await connection.execute(statement.values(values).returning(*_NOTICE))).one_or_none()
    return None if row is None else Notice(*row)


async def _end(connection: AsyncConnection, notice: Notice, values: dict[str, Any]) -> bool:
    ours = and_(alert_notices.c.id == notice.id, alert_notices.c.lease == notice.lease, _UNSENT)
    statement = update(alert_notices).where(ours).values(values | {"claimed_until": None})
    return (await connection.execute(statement)).rowcount == 1


async def sent(connection: AsyncConnection, notice: Notice, now: datetime) -> bool:
    """It has been told. False if the claim was lost meanwhile."""
    return await _end(connection, notice, {"state": "sent", "ended_at": now, "error": None})


async def put_off(connection: AsyncConnection, notice: Notice, error: str, due_at: datetime) -> bool:
    """It is tried again then. False if the claim was lost meanwhile."""
    return await _end(connection, notice, {"error": error, "due_at": due_at})


async def give_up(connection: AsyncConnection, notice: Notice, error: str, now: datetime) -> bool:
    """It is not tried again. False if the claim was lost meanwhile."""
    return await _end(connection, notice, {"state": "given_up", "ended_at": now, "error": error})


# Silences


async def add_silence(connection: AsyncConnection, silence: Silence) -> Silence:
    """Store it and return it as it is stored."""
    values = {name: value for name, value in asdict(silence).items() if name != "id"}
    stored = insert(alert_silences).values(values).returning(*_SILENCE)
    return Silence(*(await connection.execute(stored)).one())


async def silences(connection: AsyncConnection, now: datetime) -> Sequence[Silence]:
    """Those that last, in the order in which they were made."""
    statement = select(*_SILENCE).where(alert_silences.c.ends_at > now).order_by(alert_silences.c.id)
    return [Silence(*row) for row in await connection.execute(statement)]


async def remove_silence(connection: AsyncConnection, silence_id: int, now: datetime) -> Silence | None:
    """End a silence that lasts, and return it; None if there is none of that id."""
    lasting = and_(alert_silences.c.id == silence_id, alert_silences.c.ends_at > now)
    row = (await connection.execute(delete(alert_silences).where(lasting).returning(*_SILENCE))).one_or_none()
    return None if row is None else Silence(*row)


async def prune_silences(connection: AsyncConnection, before: datetime) -> None:
    """Forget those that ended before `before`."""
    await connection.execute(delete(alert_silences).where(alert_silences.c.ends_at < before))
