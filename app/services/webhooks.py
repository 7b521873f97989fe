"""Tells of the end of tasks: in the transaction that ends them, it stores the tasks that will. And who is told: subscriptions,
their deliveries, and switching off those whose receiver is dead."""

import secrets as randomness
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from app.core import webhook as core
from app.core.audit import Action, Actor, Deed, difference
from app.core.errors import Conflict, InvalidRequest, NotFound, OutboundRefused
from app.core.events import (
    EventBus,
    TasksSubmitted,
    WebhookChanged,
    WebhookCreated,
    WebhookRemoved,
    WebhookSwitchedOff,
)
from app.core.lifecycle import Outcome
from app.core.outbound import status_in
from app.core.settings import Settings
from app.core.task import TERMINAL, Attempt, NewTask, Status
from app.core.webhook import Patience, Webhook
from app.models import tasks as task_rows
from app.models import webhooks as rows
from app.models.database import Connection, Database, retried
from app.models.webhooks import Delivery
from app.services.audit import note
from app.services.destinations import Rules


async def announce(
    connection: Connection, ended: Collection[int], now: datetime, priority_step_seconds: float
) -> TasksSubmitted | None:
    """Store a notice for each `webhook_url` of these tasks, and for each subscription that their end fits; the event is to be
    published after the commit."""
    webhooks = await rows.switched_on(connection)
    ends = [end for end in await rows.ends(connection, ended) if end.status in TERMINAL]
    takers = {end.id: core.takers(end, webhooks) for end in ends}
    tasks = await task_rows.get_many(connection, [end.id for end in ends if end.asked or takers[end.id]])
    own = [told for task in tasks.values() if (told := core.notice(task)) is not None]
    subscribed = [(webhook, task) for task in tasks.values() for webhook in takers[task.id]]
    new = own + [core.notice_to(webhook, task) for webhook, task in subscribed]
    if not new:
        return None
    ids, _ = await task_rows.insert_new(connection, new, now, priority_step_seconds)
    delivered = [
        (id_, webhook.id, core.event_of(task.status), core.message_id(task, webhook))
        for id_, (webhook, task) in zip(ids[len(own) :], subscribed, strict=True)
    ]
    if delivered:
        await rows.add_deliveries(connection, delivered)
    return TasksSubmitted(tuple(ids), tuple(new))


async def note_receptions(
    connection: Connection, outcomes: Mapping[int, Outcome], patience: Patience, now: datetime
) -> list[WebhookSwitchedOff]:
    """Count what the attempts of these notices (by task id, in their order) say of their receivers. The events are to be
    published after the commit. One statement where all is well and was before."""
    receivers = await rows.receivers(connection, outcomes)
    by_webhook: dict[str, list[Outcome]] = {}
    for task_id, outcome in outcomes.items():
        if task_id in receivers:
            by_webhook.setdefault(receivers[task_id].id, []).append(outcome)
    known = {webhook.id: webhook for webhook in receivers.values()}
    changed = [id_ for id_, its in by_webhook.items() if core.judge(known[id_], its, patience, now) != known[id_]]
    events = []
    # Looked at again once nobody else can change them: other workers count too.
    for before in await rows.locked(connection, changed) if changed else ():
        after = core.judge(before, by_webhook[before.id], patience, now)
        if after != before:
            await rows.save(connection, after)
        if before.enabled and not after.enabled:
            events.append(WebhookSwitchedOff(after))
    return events


def patience_of(settings: Settings) -> Patience:
    """When a receiver counts as dead."""
    return Patience(settings.webhook_off_after_failures, settings.webhook_off_after_seconds)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """A notice and what its last attempt said. `status_code` is None where there was no answer (yet)."""

    delivery: Delivery
    status_code: int | None = None
    error: str | None = None
    attempted_at: datetime | None = None
    duration_seconds: float | None = None

    @property
    def next_attempt_at(self) -> datetime | None:
        """When it is tried again, None where it is not, or at once."""
        waits = self.delivery.status in (Status.SCHEDULED, Status.RETRYING)
        return self.delivery.scheduled_at if waits else None


class Webhooks:
    """The subscriptions of one store. Whoever names a tenant knows only that tenant's."""

    def __init__(self, database: Database, bus: EventBus, settings: Settings) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._rules = Rules(settings)
        self._clock = database.clock()

    @retried
    async def create(self, tenant: str, url: str, by: Actor | None = None, **fields: Any) -> Webhook:
        """Tell this URL from now on. `fields`: `description`, `events`, `task_types`, `queues`, `tags`, `secrets`. Raises
        InvalidRequest, Conflict where there are as many as there may be."""
        now = self._clock()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        webhook = Webhook(f"wh{randomness.token_hex(6)}", tenant, url, created_at=now, **fields)
        self._ensure_sound(webhook)
        most = self._settings.max_webhooks
        async with self._database.write() as connection:
            await rows.reserve(connection, tenant)
            if await rows.count(connection, tenant) >= most:
                raise Conflict(f"There are {most} subscriptions already, which is the most (MAX_WEBHOOKS).")
            await rows.add(connection, webhook)
            deed = Deed(Action.WEBHOOK_CREATE, f"webhook {webhook.id}", after=_audited(webhook))
            await note(connection, by, now, deed)
        self._bus.publish(WebhookCreated(webhook))
        return webhook

    def _ensure_sound(self, webhook: Webhook) -> None:
        try:
            self._rules.check(webhook.url)
        except OutboundRefused as refused:
            raise _wrong("url", f"cannot be told: {str(refused).rstrip('.')}") from None
        if not webhook.secrets and not self._settings.webhook_keys:
            raise _wrong(
                "secrets",
                "must name a secret of the workers, because WEBHOOK_SECRETS is not set and nothing is sent unsigned",
            )

    async def listed(self, tenant: str = "") -> list[Webhook]:
        """Every subscription, oldest first."""
        async with self._database.read() as connection:
            return await rows.found(connection, tenant)

    async def get(self, webhook_id: str, tenant: str = "") -> Webhook:
        """One subscription. Raises NotFound."""
        async with self._database.read() as connection:
            return await self._found(connection, webhook_id, tenant)

    async def _found(self, connection: Connection, webhook_id: str, tenant: str) -> Webhook:
        webhook = await rows.get(connection, webhook_id, tenant)
        if webhook is None:
            raise NotFound("webhook", webhook_id)
        return webhook

    @retried
    async def change(
        self,
        webhook_id: str,
        tenant: str,
        values: Mapping[str, Any],
        *,
        enabled: bool | None = None,
        by: Actor | None = None,
    ) -> Webhook:
        """Set what is given; `enabled` switches it on, which forgets its failures, or off. Raises NotFound,
        InvalidRequest."""
        async with self._database.write() as connection:
            await self._found(connection, webhook_id, tenant)
            before = await rows.locked(connection, [webhook_id])
            if not before:
                raise NotFound("webhook", webhook_id)
            after = replace(before[0], **values)
            if values:
                self._ensure_sound(after)
            if after.url != before[0].url:
                after = core.forgiven(after)
            if enabled is not None:
                after = core.switched(after, on=enabled, now=self._clock())
            await rows.save(connection, after)
            after = await self._found(connection, webhook_id, tenant)
            changed = difference(_audited(before[0]), _audited(after))
            await note(connection, by, self._clock(), Deed(Action.WEBHOOK_CHANGE, f"webhook {webhook_id}", *changed))
        self._bus.publish(WebhookChanged(before[0], after))
        return after

    @retried
    async def remove(self, webhook_id: str, tenant: str = "", by: Actor | None = None) -> None:
        """Tell it of nothing new. Raises NotFound."""
        async with self._database.write() as connection:
            webhook = await self._found(connection, webhook_id, tenant)
            await rows.remove(connection, webhook_id)
            deed = Deed(Action.WEBHOOK_DELETE, f"webhook {webhook_id}", _audited(webhook))
            await note(connection, by, self._clock(), deed)
        self._bus.publish(WebhookRemoved(webhook))

    async def counts(self) -> dict[str, int]:
        """How many subscriptions there are in each state."""
        async with self._database.read() as connection:
            return dict(zip(("on", "failing", "off", "dead"), await rows.counts(connection), strict=True))

    # Deliveries.

    async def deliveries(
        self,
        webhook_id: str,
        tenant: str,
        limit: int,
        *,
        statuses: Collection[Status] = (),
        before_id: int | None = None,
    ) -> list[DeliveryReport]:
        """Up to `limit` notices, newest first. Raises NotFound."""
        async with self._database.read() as connection:
            await self._found(connection, webhook_id, tenant)
            found = await rows.deliveries(connection, webhook_id, statuses, limit, before_id)
            return await self._reports(connection, found)

    async def _reports(self, connection: Connection, found: Sequence[Delivery]) -> list[DeliveryReport]:
        attempts = await rows.last_attempts(connection, [one.task_id for one in found]) if found else {}
        return [_report(one, attempts.get(one.task_id)) for one in found]

    @retried
    async def redeliver(
        self, webhook_id: str, task_id: int, tenant: str = "", by: Actor | None = None
    ) -> DeliveryReport:
        """Deliver a notice once more that was delivered or given up: the same message under the same id, to where the
        subscription leads now. Raises NotFound, Conflict while it is still being tried."""
        async with self._database.write() as connection:
            webhook = await self._found(connection, webhook_id, tenant)
            sent = await rows.delivery(connection, webhook_id, task_id)
            task = (await task_rows.get_many(connection, [task_id])).get(task_id) if sent else None
            if sent is None or task is None or task.payload is None:
                raise NotFound("delivery", task_id)
            if not task.finished:
                raise Conflict(f"Delivery {task_id} is {task.status}: it is being tried as it is.", task.status)
            # It may be deleted at this moment, and then cannot be referred to.
            subject = [] if sent.subject is None else list(await task_rows.present(connection, [sent.subject]))
            new = core.notice_again(webhook, task.payload, task.queue, subject[0] if subject else None)
            report, event = await self._deliver(connection, webhook, new, sent.event, sent.message_id)
            deed = Deed(Action.WEBHOOK_REDELIVER, f"webhook {webhook_id}", after={"task_id": task_id})
            await note(connection, by, self._clock(), deed)
        self._bus.publish(event)
        return report

    @retried
    async def ping(self, webhook_id: str, tenant: str = "", by: Actor | None = None) -> DeliveryReport:
        """Send a subscription something to try itself with, whatever its filters, switched on or off. Raises NotFound."""
        now = self._clock()
        async with self._database.write() as connection:
            webhook = await self._found(connection, webhook_id, tenant)
            queue = webhook.queues[0] if webhook.queues else self._settings.default_queue
            ping_id = f"msg_test_{randomness.token_hex(8)}_{webhook.id}"
            new = core.ping(webhook, ping_id, queue, now)
            report, event = await self._deliver(connection, webhook, new, core.TEST_EVENT, ping_id)
            await note(connection, by, now, Deed(Action.WEBHOOK_TEST, f"webhook {webhook_id}"))
        self._bus.publish(event)
        return report

    async def _deliver(
        self, connection: Connection, webhook: Webhook, new: NewTask, event: str, message_id: str
    ) -> tuple[DeliveryReport, TasksSubmitted]:
        step = self._settings.priority_step_seconds
        ids, _ = await task_rows.insert_new(connection, [new], self._clock(), step)
        await rows.add_deliveries(connection, [(ids[0], webhook.id, event, message_id)])
        stored = await rows.delivery(connection, webhook.id, ids[0])
        assert stored is not None
        return DeliveryReport(stored), TasksSubmitted((ids[0],), (new,))


def _audited(webhook: Webhook) -> dict[str, object]:
    names = ("tenant", "url", "description", "events", "task_types", "queues", "tags", "enabled")
    return {name: getattr(webhook, name) for name in names} | {"signed_with": webhook.secrets}


def _wrong(field: str, message: str) -> InvalidRequest:
    fault = {"location": ["body", field], "message": message, "type": "value_error"}
    return InvalidRequest(f"{field} {message}.", [fault])


def _report(delivery: Delivery, failed: Attempt | None) -> DeliveryReport:
    if delivery.status is Status.COMPLETED and delivery.started_at and delivery.finished_at:
        code = orjson.loads(delivery.result or "{}").get("status")
        seconds = (delivery.finished_at - delivery.started_at).total_seconds()
        return DeliveryReport(delivery, code, None, delivery.started_at, seconds)
    if failed is None or failed.error is None or failed.finished_at is None:
        return DeliveryReport(delivery)
    message = orjson.loads(failed.error)["message"]
    seconds = (failed.finished_at - failed.started_at).total_seconds()
    return DeliveryReport(delivery, status_in(message), message, failed.started_at, seconds)
