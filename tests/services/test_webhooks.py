"""Whoever wants to be told of a task's end is told in the transaction that ends it, however it ends."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.core.errors import Conflict, InvalidRequest, NotFound, UnknownTaskType
from app.core.events import TasksSubmitted, WebhookSwitchedOff
from app.core.lifecycle import Cancelled, Completed, Errored, Lost, Outcome, Released, Snoozed, TimedOut
from app.core.settings import Settings
from app.core.task import ClaimedTask, JsonText, Status, Task
from app.core.webhook import MOST_RESULT_CHARACTERS, Webhook
from app.models import tasks as task_rows
from app.models.tasks import TaskFilter
from app.services.settling import Ended
from app.services.submissions import Submission
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit, lose_leases

URL = "https://hooks.example.com/tasks?to=us"
DONE = Completed(JsonText('{"text":"Grüße"}'))
DOWN = Errored("UnexpectedStatus", "https://crm.example.com/in answered 503 Service Unavailable.")


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRETS", "secret-of-the-tests-1")


async def _notices(services: Services, task_id: int) -> list[Task]:
    found = await services.tasks.search(TaskFilter(parent_id=task_id), 100, whole_rows=True)
    return sorted(found, key=lambda task: task.id)


def _told(task: Task) -> dict[str, object]:
    told: dict[str, object] = json.loads(json.loads(task.payload or "")["body"])
    return told


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (DONE, "completed"),
        (Errored("ValueError", "no good", "Traceback ...", retryable=False), "failed"),
        (Errored("ValueError", "no good"), "failed"),
        (TimedOut(5), "failed"),
        (Lost("killed"), "failed"),
        (Cancelled(), "cancelled"),
    ],
)
async def test_each_end_of_a_run_is_told_once(
    outcome: Outcome, status: str, services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit(webhook_url=URL, max_attempts=1, queue="q", tags=["red"], metadata={"who": "Zoë"})
    heard: list[TasksSubmitted] = []
    services.bus.subscribe(TasksSubmitted, heard.append)
    (task,) = await claim()
    await settle(task, outcome)
    (notice,) = await _notices(services, task_id)
    assert (notice.task_type, notice.queue, notice.status, notice.priority) == ("webhook", "q", Status.PENDING, 100)
    assert [event.ids for event in heard] == [(notice.id,)]
    told = _told(notice)
    assert told["type"] == f"task.{status}"
    data = told["data"]
    assert isinstance(data, dict)
    assert (data["id"], data["status"], data["tags"], data["metadata"]) == (task_id, status, ["red"], {"who": "Zoë"})
    assert data["result"] == ({"text": "Grüße"} if status == "completed" else None)
    assert "traceback" not in (data["error"] or {})
    assert json.loads(notice.payload or "")["url"] == URL


@pytest.mark.parametrize("outcome", [Released("stopped"), Snoozed(60), Errored("ValueError", "again"), TimedOut(5)])
async def test_what_goes_on_is_not_told(
    outcome: Outcome, services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    task_id = await submit(webhook_url=URL)
    (task,) = await claim()
    await settle(task, outcome)
    assert await _notices(services, task_id) == []


async def test_who_does_not_ask_is_not_told(services: Services, submit: Submit, claim: Claim, settle: Settle) -> None:
    task_id = await submit()
    (task,) = await claim()
    await settle(task, DONE)
    assert await _notices(services, task_id) == []


async def test_a_cancelled_wait_is_told(services: Services, submit: Submit) -> None:
    task_id = await submit(webhook_url=URL)
    await services.tasks.cancel(task_id)
    await services.tasks.cancel(task_id)
    (notice,) = await _notices(services, task_id)
    assert _told(notice)["type"] == "task.cancelled"


async def test_a_task_that_expired_is_told(services: Services, submit: Submit, clock: FrozenClock) -> None:
    task_id = await submit(webhook_url=URL, expires_at=clock() + timedelta(seconds=5))
    clock.forward(6)
    await services.chores.expire()
    (notice,) = await _notices(services, task_id)
    assert "expired" in str(_told(notice)["data"])


async def test_a_task_that_lost_its_worker_for_good_is_told(
    services: Services, submit: Submit, claim: Claim, clock: FrozenClock
) -> None:
    task_id = await submit(webhook_url=URL, max_attempts=1)
    await claim()
    await lose_leases(services, clock)
    (notice,) = await _notices(services, task_id)
    assert _told(notice)["type"] == "task.failed"


async def test_a_late_finisher_tells_nothing(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    """A zombie's end changes no row, so there is nothing to tell of."""
    task_id = await submit(webhook_url=URL)
    (late,) = await claim()
    await lose_leases(services, clock)
    clock.forward(60)
    (now,) = await claim()
    await settle(late, DONE)
    assert await _notices(services, task_id) == []
    await settle(now, DONE)
    assert len(await _notices(services, task_id)) == 1


async def test_a_retry_by_hand_is_told_again_under_another_id(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    task_id = await submit(webhook_url=URL)
    for _ in range(2):
        (task,) = [one for one in await claim() if one.id == task_id]
        await settle(task, Errored("ValueError", "no good", retryable=False))
        clock.forward(1)
        if (await services.tasks.get(task_id)).status is Status.FAILED and len(await _notices(services, task_id)) == 1:
            await services.tasks.retry(task_id)
    first, second = await _notices(services, task_id)
    assert json.loads(first.payload or "")["message_id"] != json.loads(second.payload or "")["message_id"]


async def _subscribed(services: Services, tenant: str = "", **fields: Any) -> Webhook:
    every = {"events": ("completed", "failed", "cancelled"), "task_types": (), "queues": (), "tags": (), "secrets": ()}
    return await services.webhooks.create(
        tenant, "https://crm.example.com/in", **({"description": None} | every | fields)
    )


async def test_a_subscription_is_told_of_each_end_that_fits(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    red = await _subscribed(services, tags=("red",))
    failures = await _subscribed(services, events=("failed", "cancelled"), secrets=("crm", "crm_old"))
    done, broken = await submit(tags=["red"]), await submit()
    for task, outcome in zip(await claim(), (DONE, Errored("ValueError", "no", retryable=False)), strict=True):
        await settle(task, outcome)
    cancelled = await submit()
    await services.tasks.cancel(cancelled)
    expired = await submit(expires_at=clock() + timedelta(seconds=5))
    clock.forward(6)
    await services.chores.expire()
    lost = await submit(max_attempts=1, priority=100)
    await claim()
    await lose_leases(services, clock)
    assert [one.delivery.subject for one in await services.webhooks.deliveries(red.id, "", 10)] == [done]
    told = await services.webhooks.deliveries(failures.id, "", 10)
    events = {one.delivery.subject: one.delivery.event for one in told}
    assert events == {
        broken: "task.failed",
        cancelled: "task.cancelled",
        expired: "task.failed",
        lost: "task.failed",
    }
    (notice,) = await _notices(services, broken)
    payload = json.loads(notice.payload or "")
    assert (payload["url"], payload["webhook_id"], payload["secrets"]) == (
        failures.url,
        failures.id,
        ["crm", "crm_old"],
    )
    assert _told(notice)["type"] == "task.failed"


async def test_one_that_is_made_is_told_of_the_next_end_whatever_a_process_knew_before(
    services: Services, settings: Settings, clock: FrozenClock, submit: Submit, claim: Claim, settle: Settle
) -> None:
    """There is no list in memory that could be old: another process makes it, and this one ends the task."""
    first, second = await submit(), await submit()
    one, other = await claim()
    await settle(one, DONE)
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as elsewhere:
        webhook = await _subscribed(elsewhere)
        await settle(other, DONE)
        await elsewhere.webhooks.change(webhook.id, "", {}, enabled=False)
    third = await submit()
    (last,) = [task for task in await claim() if task.id == third]
    await settle(last, DONE)
    assert [len(await _notices(services, id_)) for id_ in (first, second, third)] == [0, 1, 0]


async def test_notices_of_a_subscription_are_not_told_of(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    webhook = await _subscribed(services)
    await submit()
    for _ in range(2):
        for task in await claim():
            await settle(task, DONE)
    assert len(await services.webhooks.deliveries(webhook.id, "", 10)) == 1
    assert await claim() == []


async def test_a_webhook_url_and_a_subscription_are_both_told(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    webhook = await _subscribed(services)
    task_id = await submit(webhook_url=URL)
    (task,) = await claim()
    await settle(task, DONE)
    own, subscribed = (json.loads(one.payload or "") for one in await _notices(services, task_id))
    assert (own["url"], subscribed["url"]) == (URL, webhook.url)
    assert own["message_id"] != subscribed["message_id"]
    assert own["body"] == subscribed["body"]


async def test_what_the_operator_hears_of_a_tenants_task_is_not_the_tenants(
    services: Services, claim: Claim, settle: Settle
) -> None:
    everyones, norths, _ = [await _subscribed(services, tenant) for tenant in ("", "north", "south")]
    new = services.intake.prepare(Submission(task_type="echo"), tenant="north")
    task_id = (await services.tasks.submit(new)).task.id
    (task,) = await claim()
    await settle(task, DONE)
    of_all = await _notices(services, task_id)
    assert {json.loads(one.payload or "")["webhook_id"]: one.tenant for one in of_all} == {
        everyones.id: "",
        norths.id: "north",
    }
    seen = await services.tasks.search(TaskFilter(parent_id=task_id, tenant="north"), 10, whole_rows=False)
    assert [one.tenant for one in seen] == ["north"]
    assert [one.id for one in await services.webhooks.listed("north")] == [norths.id]
    for call in (
        services.webhooks.get(everyones.id, "north"),
        services.webhooks.change(everyones.id, "north", {"description": "mine"}),
        services.webhooks.remove(everyones.id, "north"),
        services.webhooks.ping(everyones.id, "north"),
        services.webhooks.deliveries(everyones.id, "north", 10),
        services.webhooks.redeliver(everyones.id, of_all[0].id, "north"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_there_are_only_so_many(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.webhooks, "_settings", services.settings.model_copy(update={"max_webhooks": 2}))
    for tenant in ("", "north"):
        for _ in range(2):
            await _subscribed(services, tenant)
        with pytest.raises(Conflict, match="MAX_WEBHOOKS"):
            await _subscribed(services, tenant)


async def _notice_of(services: Services, claim: Claim, webhook: Webhook) -> ClaimedTask:
    report = await services.webhooks.ping(webhook.id)
    (task,) = [one for one in await claim() if one.id == report.delivery.task_id]
    return task


async def test_the_log_says_what_came_of_each_attempt(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    webhook = await _subscribed(services)
    task = await _notice_of(services, claim, webhook)
    clock.forward(2)
    await settle(task, DOWN)
    (report,) = await services.webhooks.deliveries(webhook.id, "", 10)
    assert (report.delivery.event, report.delivery.status, report.delivery.attempts) == ("webhook.test", "retrying", 1)
    assert (report.status_code, report.duration_seconds) == (503, 2.0)
    assert report.next_attempt_at is not None
    clock.forward(3600)
    (again,) = await claim()
    clock.forward(0.25)
    at = clock() - timedelta(seconds=0.25)
    await services.queue.exchange("w1", [Ended(again, Completed(JsonText('{"status":204}')), at, 0.25)])
    (report,) = await services.webhooks.deliveries(webhook.id, "", 10)
    assert (report.status_code, report.duration_seconds, report.error) == (204, 0.25, None)
    assert (report.next_attempt_at, report.delivery.attempts) == (None, 2)
    assert await services.webhooks.deliveries(webhook.id, "", 10, statuses=[Status.FAILED]) == []


async def test_a_delivery_is_repeated_under_its_id_to_where_the_subscription_leads_now(
    services: Services, claim: Claim, settle: Settle
) -> None:
    webhook = await _subscribed(services)
    task = await _notice_of(services, claim, webhook)
    with pytest.raises(Conflict, match="being tried"):
        await services.webhooks.redeliver(webhook.id, task.id)
    await settle(task, Completed(JsonText('{"status":200}')))
    await services.webhooks.change(webhook.id, "", {"url": "https://new.example.com/in", "secrets": ("new",)})
    report = await services.webhooks.redeliver(webhook.id, task.id)
    (again,) = await claim()
    first, second = json.loads(task.payload), json.loads(again.payload)
    assert again.id == report.delivery.task_id
    assert (second["message_id"], second["body"]) == (first["message_id"], first["body"])
    assert (second["url"], second["secrets"]) == ("https://new.example.com/in", ["new"])
    other = await _subscribed(services)
    with pytest.raises(NotFound):
        await services.webhooks.redeliver(other.id, task.id)


async def test_a_dead_receiver_is_told_nothing_more_until_somebody_switches_it_on(
    services: Services, submit: Submit, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    webhook, well = await _subscribed(services), await _subscribed(services, queues=("other",))
    heard: list[WebhookSwitchedOff] = []
    services.bus.subscribe(WebhookSwitchedOff, heard.append)
    settings = services.settings
    for number in range(settings.webhook_off_after_failures):
        last = number == settings.webhook_off_after_failures - 1
        # The breaker of the host lets one through now and then.
        clock.forward(settings.webhook_off_after_seconds if last else 3600)
        assert (await services.webhooks.get(webhook.id)).failures == number
        task = await _notice_of(services, claim, webhook)
        await settle(task, replace(DOWN, retryable=False))
    off = await services.webhooks.get(webhook.id)
    assert (off.enabled, off.switched_off_at, off.failures) == (False, clock(), settings.webhook_off_after_failures)
    assert "answered 503" in str(off.switched_off_reason)
    assert [event.webhook for event in heard] == [off]
    assert await services.webhooks.counts() == {"on": 1, "failing": 0, "off": 0, "dead": 1}
    assert (await services.webhooks.get(well.id)).enabled
    untold = await submit()
    (task,) = await claim()
    await settle(task, DONE)
    assert await _notices(services, untold) == []
    on = await services.webhooks.change(webhook.id, "", {}, enabled=True)
    assert (on.enabled, on.failures, on.failing_since, on.switched_off_reason) == (True, 0, None, None)
    told = await submit()
    (task,) = await claim()
    await settle(task, DONE)
    assert len(await _notices(services, told)) == 1


async def test_a_late_attempt_says_nothing_of_a_receiver(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    webhook = await _subscribed(services)
    late = await _notice_of(services, claim, webhook)
    await lose_leases(services, clock)
    await settle(late, DOWN)
    assert (await services.webhooks.get(webhook.id)).failures == 0


async def test_one_that_is_removed_is_told_what_is_stored_already_and_nothing_more(
    services: Services, submit: Submit, claim: Claim, settle: Settle
) -> None:
    webhook = await _subscribed(services)
    notice = await _notice_of(services, claim, webhook)
    await services.webhooks.remove(webhook.id)
    await settle(notice, DOWN)
    await submit()
    (task,) = await claim()
    await settle(task, DONE)
    assert await claim() == []
    assert (await services.tasks.get(notice.id)).status is Status.RETRYING


async def test_deliveries_go_with_their_tasks(services: Services, claim: Claim, settle: Settle) -> None:
    webhook = await _subscribed(services)
    task = await _notice_of(services, claim, webhook)
    await settle(task, DONE)
    await services.tasks.delete(task.id)
    assert await services.webhooks.deliveries(webhook.id, "", 10) == []


async def test_an_end_and_its_notice_are_stored_together_or_not_at_all(
    services: Services, submit: Submit, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await submit(webhook_url=URL)
    (task,) = await claim()
    insert: Callable[..., Awaitable[object]] = task_rows.insert_new

    async def broken(*arguments: object) -> object:
        await insert(*arguments)
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(task_rows, "insert_new", broken)
        with pytest.raises(RuntimeError):
            await services.queue.exchange("w1", [Ended(task, DONE, services.database.clock()())])
    assert (await services.tasks.get(task_id)).status is Status.RUNNING
    assert await _notices(services, task_id) == []


async def test_a_large_result_is_left_out(services: Services, submit: Submit, claim: Claim, settle: Settle) -> None:
    task_id = await submit(webhook_url=URL)
    (task,) = await claim()
    await settle(task, Completed(JsonText(json.dumps("x" * MOST_RESULT_CHARACTERS))))
    (notice,) = await _notices(services, task_id)
    data = _told(notice)["data"]
    assert isinstance(data, dict)
    assert (data["result"], data["result_left_out"]) == (None, True)


async def test_nobody_submits_a_notice_of_their_own(services: Services) -> None:
    """It would be signed as ours."""
    payload = {"url": URL, "message_id": "m", "body": "{}"}
    with pytest.raises(UnknownTaskType):
        services.intake.prepare(Submission(task_type="webhook", payload=payload))
    batch = {"task_type": "webhook", "items": [payload]}
    with pytest.raises(InvalidRequest):
        services.intake.prepare(Submission(task_type="batch_processing", payload=batch))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "file:///etc/passwd", "https://a:b@example.com/", "https://example.com:22/", "x", "//x"],
)
async def test_a_url_that_may_not_be_told_is_refused(url: str, services: Services) -> None:
    with pytest.raises(InvalidRequest, match="webhook_url cannot be told"):
        services.intake.prepare(Submission(task_type="echo", webhook_url=url))


async def test_without_a_secret_no_url_is_taken(monkeypatch: pytest.MonkeyPatch, services: Services) -> None:
    monkeypatch.setattr(
        services.intake,
        "_settings",
        services.settings.model_copy(update={"webhook_secrets": type(services.settings.webhook_secrets)("")}),
    )
    with pytest.raises(InvalidRequest, match="WEBHOOK_SECRETS is not set"):
        services.intake.prepare(Submission(task_type="echo", webhook_url=URL))
