"""Alerts in rows: found by turns, told once by whoever claims the notice, silenced, remembered, forgotten."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.core.alerts import AlertState
from app.core.audit import Actor
from app.core.errors import Conflict, NotFound
from app.core.lifecycle import Errored
from app.core.notices import CLAIMED, MOST_ATTEMPTS
from app.core.settings import Settings
from app.models import webhooks as webhook_rows
from app.models.alerts import AlertFilter
from app.services.alerts import AlertReport
from app.services.channels import Sender
from app.services.wiring import Services, open_services
from tests.conftest import FrozenClock
from tests.services.conftest import Claim, Settle, Submit

CHANNELS = {
    "webhook_secrets": "secret-of-the-tests-1",
    "alert_webhook_url": "https://hooks.example.com/alerts",
    "alert_slack_url": "https://chat.example.com/T0/B0/secret-path",
}

ANY_END: dict[str, Any] = {"description": None, "events": ("failed",), "task_types": (), "queues": (), "tags": ()}
ANN = Actor("tk0", "ann")


class Ear:
    """Stands in for the world outside: what was sent to which channel, and what comes back."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []
        self.answer: Callable[[str], Awaitable[str | None]] | None = None

    async def send(self, _sender: Sender, channel: str, message_id: str, told: str) -> str | None:
        self.heard.append((channel, message_id, json.loads(told)["type"]))
        return await self.answer(channel) if self.answer is not None else None

    def types(self, channel: str = "webhook") -> list[str]:
        return [kind for name, _, kind in self.heard if name == channel]


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Ear:
    ear = Ear()
    monkeypatch.setattr(Sender, "send", lambda *arguments: ear.send(*arguments))
    return ear


@pytest.fixture
def settings(settings: Settings, ear: Ear) -> Settings:
    return Settings(**settings.model_dump(include=settings.model_fields_set), **CHANNELS)  # type: ignore[arg-type]


@pytest.fixture
async def other(settings: Settings, clock: FrozenClock) -> AsyncIterator[Services]:
    """Another process on the same store."""
    async with open_services(settings, clock=clock, monotonic=clock.monotonic) as services:
        yield services


async def look(services: Services, clock: FrozenClock, seconds: float = 15) -> list[AlertReport]:
    """Time passes, somebody looks and tells."""
    clock.forward(seconds)
    await services.alerts.look()
    while await services.alerts.tell():
        pass
    return await services.alerts.listed()


async def fire(services: Services, clock: FrozenClock, submit: Submit) -> AlertReport:
    """A task waits until its alert fires."""
    await submit(queue="mail")
    await look(services, clock, 301)
    (report,) = await look(services, clock, 61)
    assert report.alert.state is AlertState.FIRING
    return report


async def calm(services: Services, clock: FrozenClock, claim: Claim) -> None:
    """The task runs, and the alert clears."""
    await claim()
    await look(services, clock)
    assert await look(services, clock, 301) == []


async def test_an_alert_lives_from_holding_to_history(
    services: Services, clock: FrozenClock, submit: Submit, claim: Claim, ear: Ear
) -> None:
    await submit(queue="mail")
    assert await look(services, clock) == []
    (held,) = await look(services, clock, 300)
    assert (held.alert.rule, held.alert.subject, held.alert.state) == ("queue-old", "mail", AlertState.HOLDING)
    assert ear.heard == []
    (firing,) = await look(services, clock, 60)
    assert (firing.alert.id, firing.alert.state) == (held.alert.id, AlertState.FIRING)
    told = [(one.channel, one.state, one.attempts) for one in firing.deliveries]
    assert told == [("webhook", "sent", 1), ("slack", "sent", 1)]
    assert ear.types("webhook") == ear.types("slack") == ["alert.fired"]
    await look(services, clock)
    assert len(ear.heard) == 2, "it is told once, however long it fires"
    await calm(services, clock, claim)
    assert ear.types("webhook") == ear.types("slack") == ["alert.fired", "alert.cleared"]
    (past,) = await services.alerts.history(AlertFilter(), 10)
    assert (past.alert.id, past.alert.state) == (held.alert.id, AlertState.CLEARED)
    assert [(one.kind.value, one.state) for one in past.deliveries] == 2 * [("fired", "sent")] + 2 * [
        ("cleared", "sent")
    ]
    assert await services.alerts.history(AlertFilter(queue="other"), 10) == []
    assert await services.alerts.history(AlertFilter(rule="failures"), 10) == []


async def test_what_held_and_passed_is_forgotten(
    services: Services, clock: FrozenClock, submit: Submit, claim: Claim, ear: Ear
) -> None:
    await submit(queue="mail")
    assert len(await look(services, clock, 301)) == 1
    await claim()
    assert await look(services, clock) == []
    assert (await services.alerts.history(AlertFilter(), 10), ear.heard) == ([], [])


async def test_failures_and_dead_letters_are_seen_as_they_are_stored(
    services: Services, clock: FrozenClock, submit: Submit, claim: Claim, settle: Settle
) -> None:
    for _ in range(10):
        await submit(queue="mail")
    for task in await claim(10):
        await settle(task, Errored("ValueError", "no good", retryable=False))
    await services.tallies.write()
    assert [report.alert.rule for report in await look(services, clock)] == ["failures", "dead-letters-grow"]
    clock.forward(3600)
    assert await look(services, clock) == []


async def test_a_silent_worker_and_an_open_breaker_are_seen(services: Services, clock: FrozenClock) -> None:
    worker = await services.workers.sign_in("w", [], ["echo"], 4)
    await services.breakers.trip("echo", "not today", None)
    found = await look(services, clock, 61)
    assert [(one.alert.rule, one.alert.subject) for one in found] == [
        *(("worker-silent", worker.id), ("breaker-open", "echo")),
    ]
    await services.workers.sign_out(worker)
    await services.breakers.reset("echo")
    assert await look(services, clock) == []


async def test_a_webhook_with_a_dead_receiver_is_seen(services: Services, clock: FrozenClock) -> None:
    webhook = await services.webhooks.create("", "https://hooks.example.com/in?token=abc", secrets=("crm",), **ANY_END)
    dead = replace(webhook, switched_off_at=clock(), switched_off_reason="It answered 410 Gone.")
    async with services.database.write() as connection:
        await webhook_rows.save(connection, dead)
    (report,) = await look(services, clock)
    assert (report.alert.rule, report.alert.subject) == ("webhook-dead", webhook.id)
    assert report.alert.what == f"Webhook {webhook.id} to hooks.example.com is switched off: It answered 410 Gone."
    await services.webhooks.change(webhook.id, "", {}, enabled=True)
    assert await look(services, clock) == []


async def test_of_two_processes_one_looks_in_each_turn(
    services: Services, other: Services, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    for name, one in (("first", services), ("second", other)):

        async def judge(_sight: Any, name: str = name) -> None:
            looked.append(name)

        monkeypatch.setattr(one.alerts, "judge", judge)
    for _ in range(3):
        await asyncio.gather(services.alerts.look(), other.alerts.look())
        await other.alerts.look()
        clock.forward(15)
    assert len(looked) == 3
    clock.set(-3600)
    await services.alerts.look()
    assert len(looked) == 4, "a clock that was set back holds up nobody"


async def test_two_that_look_at_once_store_one_alert(
    services: Services, other: Services, clock: FrozenClock, submit: Submit, ear: Ear
) -> None:
    await submit(queue="mail")
    clock.forward(301)
    sights = await services.alerts._sight(), await other.alerts._sight()
    await asyncio.gather(services.alerts.judge(sights[0]), other.alerts.judge(sights[1]))
    assert len(await services.alerts.listed()) == 1
    clock.forward(61)
    sights = await services.alerts._sight(), await other.alerts._sight()
    await asyncio.gather(services.alerts.judge(sights[0]), other.alerts.judge(sights[1]))
    (report,) = await services.alerts.listed()
    assert len(report.deliveries) == 2
    assert ear.heard == []


async def test_of_two_senders_one_sends(
    services: Services, other: Services, clock: FrozenClock, submit: Submit, ear: Ear
) -> None:
    await submit(queue="mail")
    await look(services, clock, 301)
    clock.forward(61)
    await services.alerts.look()
    await asyncio.gather(services.alerts.tell(), other.alerts.tell())
    assert sorted(channel for channel, _, _ in ear.heard) == ["slack", "webhook"]


async def test_what_was_not_taken_is_told_again_later_under_the_same_id(
    services: Services, clock: FrozenClock, submit: Submit, ear: Ear
) -> None:
    answers = iter(["no", "no", None])

    async def answer(channel: str) -> str | None:
        return next(answers) if channel == "webhook" else None

    ear.answer = answer
    report = await fire(services, clock, submit)
    (failed,) = [one for one in report.deliveries if one.channel == "webhook"]
    assert (failed.state, failed.attempts, failed.error) == ("waiting", 1, "no")
    assert (failed.due_at - clock()).total_seconds() == 5
    await look(services, clock, 4)
    assert ear.types() == ["alert.fired"]
    await look(services, clock, 1)
    await look(services, clock, 10)
    assert ear.types() == 3 * ["alert.fired"]
    assert len({message_id for channel, message_id, _ in ear.heard if channel == "webhook"}) == 1
    assert ear.types("slack") == ["alert.fired"], "the other channel has nothing to do with it"


async def test_it_is_given_up_in_the_end(services: Services, clock: FrozenClock, submit: Submit, ear: Ear) -> None:
    async def answer(channel: str) -> str | None:
        return "gone" if channel == "webhook" else None

    ear.answer = answer
    await fire(services, clock, submit)
    for _ in range(MOST_ATTEMPTS + 3):
        (report,) = await look(services, clock, 7201)
    (given_up,) = [one for one in report.deliveries if one.channel == "webhook"]
    assert (given_up.state, given_up.attempts, given_up.error) == ("given_up", MOST_ATTEMPTS, "gone")
    assert len(ear.types()) == MOST_ATTEMPTS


async def test_nobody_hears_of_the_end_before_the_beginning(
    services: Services, clock: FrozenClock, submit: Submit, claim: Claim, ear: Ear
) -> None:
    away = True

    async def answer(_channel: str) -> str | None:
        return "away" if away else None

    ear.answer = answer
    await fire(services, clock, submit)
    await calm(services, clock, claim)
    away = False
    ear.heard.clear()
    for _ in range(3):
        await look(services, clock, 3600)
    assert ear.types() == ["alert.fired", "alert.cleared"]


async def test_who_dies_while_sending_loses_nothing(
    services: Services, other: Services, clock: FrozenClock, submit: Submit, ear: Ear
) -> None:
    """And who was only slow changes nothing when it comes back."""
    sending, come_back = asyncio.Event(), asyncio.Event()

    async def hang(_channel: str) -> str | None:
        sending.set()
        await come_back.wait()
        return "too late"

    ear.answer = hang
    await submit(queue="mail")
    await look(services, clock, 301)
    clock.forward(61)
    await services.alerts.look()
    slow = asyncio.create_task(services.alerts.tell())
    await sending.wait()
    ear.answer = None
    await other.alerts.tell()
    assert ear.types() == ["alert.fired"], "it is in the hands of the slow one"
    clock.forward(CLAIMED.total_seconds())
    await other.alerts.tell()
    assert ear.types() == ["alert.fired", "alert.fired"]
    come_back.set()
    await slow
    (report,) = await other.alerts.listed()
    assert {(one.state, one.error) for one in report.deliveries} == {("sent", None)}


async def test_a_silence_holds_back_what_fires_until_it_ends(
    services: Services, clock: FrozenClock, submit: Submit, ear: Ear
) -> None:
    made = await services.alerts.silence("queue-old", "mail", timedelta(seconds=1000), "planned", ANN)
    assert await services.alerts.silences() == [made]
    report = await fire(services, clock, submit)
    assert (report.silenced, report.alert.told_at, report.deliveries) == (True, None, ())
    (report,) = await look(services, clock, 1000)
    assert (report.silenced, ear.types()) == (False, ["alert.fired"])
    assert await services.alerts.silences() == []


async def test_a_silence_can_be_ended_and_covers_no_other_queue(
    services: Services, clock: FrozenClock, submit: Submit, ear: Ear
) -> None:
    made = await services.alerts.silence(None, "other", timedelta(seconds=1000), "planned", ANN)
    await services.alerts.silence("failures", None, timedelta(seconds=1000), "planned", ANN)
    whole = await services.alerts.silence(None, None, timedelta(seconds=1000), "night", ANN)
    await fire(services, clock, submit)
    assert ear.heard == []
    await services.alerts.end_silence(whole.id, ANN)
    await look(services, clock)
    assert ear.types() == ["alert.fired"]
    await services.alerts.end_silence(made.id, ANN)
    for gone in (made.id, 10**30, 0):
        with pytest.raises(NotFound):
            await services.alerts.end_silence(gone, ANN)


@asynccontextmanager
async def _mute(settings: Settings, clock: FrozenClock) -> AsyncIterator[Services]:
    """A process that was given no channels."""
    without = Settings(**settings.model_dump(exclude=set(CHANNELS), include=settings.model_fields_set))
    async with open_services(without, clock=clock, monotonic=clock.monotonic) as services:
        yield services


async def test_a_process_without_channels_leaves_the_telling_to_others(
    services: Services, settings: Settings, clock: FrozenClock, submit: Submit, claim: Claim, ear: Ear
) -> None:
    async with _mute(settings, clock) as mute:
        report = await fire(mute, clock, submit)
        assert (report.alert.told_at, report.deliveries, ear.heard) == (None, (), [])
        await look(services, clock)
        assert ear.types() == ["alert.fired"]
        await calm(mute, clock, claim)
        await services.alerts.tell()
        assert ear.types() == ["alert.fired", "alert.cleared"], "who heard of the beginning hears of the end"


async def test_a_test_is_sent_at_once_and_tells_what_came_of_it(services: Services, ear: Ear) -> None:
    async def answer(channel: str) -> str | None:
        return "no such channel" if channel == "slack" else None

    ear.answer = answer
    assert [(one.channel, one.error) for one in await services.alerts.test()] == [
        *(("webhook", None), ("slack", "no such channel")),
    ]
    assert [one.channel for one in await services.alerts.test("webhook")] == ["webhook"]
    assert {kind for _, _, kind in ear.heard} == {"alert.test"}
    with pytest.raises(Conflict, match="mail is not set"):
        await services.alerts.test("mail")


async def test_old_alerts_are_pruned_and_those_that_fire_stay(
    services: Services, clock: FrozenClock, submit: Submit, claim: Claim
) -> None:
    await fire(services, clock, submit)
    await calm(services, clock, claim)
    await services.alerts.silence(None, None, timedelta(seconds=10), "short", ANN)
    clock.forward(29 * 86400)
    assert await services.alerts.prune() is False
    assert len(await services.alerts.history(AlertFilter(), 10)) == 1
    await fire(services, clock, submit)
    clock.forward(2 * 86400)
    await services.alerts.prune()
    (left,) = await services.alerts.history(AlertFilter(), 10)
    assert left.alert.state is AlertState.FIRING
    async with services.database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM alert_notices")) == 2
        assert await connection.scalar(text("SELECT count(*) FROM alert_silences")) == 0


async def test_looking_and_telling_are_chores_of_every_process(services: Services) -> None:
    assert {"look for alerts", "tell of alerts", "prune alerts"} <= set(services.upkeep.chores)
