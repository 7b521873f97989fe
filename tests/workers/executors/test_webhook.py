"""Notices of ended tasks, from the worker to a receiver that checks them."""

import asyncio
import base64
import hashlib
import hmac
import json
from contextlib import suppress
from typing import Any

import pytest

from app.core.errors import Conflict
from app.core.lifecycle import Edit
from app.core.settings import SettingsError, load_settings
from app.core.signature import key_of, signed
from app.core.task import FailureReason, Status, Task
from app.models.tasks import TaskFilter
from tests.conftest import until
from tests.security.conftest import Asked, plain, redirect, serving
from tests.workers.conftest import Running, Start

NEW, OLD = "whsec_" + base64.b64encode(b"the new secret of the tests").decode(), "the old secret"
FILTERS: dict[str, Any] = {
    "description": None,
    "events": ("completed", "failed"),
    "task_types": (),
    "queues": (),
    "tags": (),
}
FILTERS |= {"secrets": ()}
SECRETS = f"{NEW},{OLD.replace(' ', '-')}-of-tests"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRETS", SECRETS)


def _signature(secret: str, asked: Asked) -> str:
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    text = f"{asked.headers['webhook-id']}.{asked.headers['webhook-timestamp']}.".encode() + asked.body
    return f"v1,{base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()}"


async def _notice(running: Running, task_id: int) -> Task:
    async def found() -> Task | None:
        tasks = await running.services.tasks.search(TaskFilter(parent_id=task_id), 10, whole_rows=True)
        return tasks[0] if tasks else None

    notice: Task = await until(found)
    return notice


async def test_a_receiver_can_check_either_secret(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain("204 No Content", b"")) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        task = await running.run("echo", payload={"text": "hello"}, webhook_url=f"{site.url}/told?x=1")
        notice = await running.ended((await _notice(running, task.id)).id)
    asked = site.asked[0]
    assert asked.line == "POST /told?x=1 HTTP/1.1"
    assert asked.headers["webhook-signature"].split(" ") == [_signature(one, asked) for one in SECRETS.split(",")]
    assert asked.headers["content-type"] == "application/json"
    told = json.loads(asked.body)
    assert (told["type"], told["data"]["id"], told["data"]["status"]) == ("task.completed", task.id, "completed")
    assert (notice.status, json.loads(notice.result or "")) == (Status.COMPLETED, {"status": 204})


async def test_a_receiver_that_is_away_is_told_later_under_the_same_id(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["500 Down", "404 Not deployed yet", "302 Elsewhere", "200 OK"])

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await plain(next(answers))(asked, writer)

    async with serving(answer) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        task = await running.run("echo", payload={"text": "hello"}, webhook_url=site.url)
        notice = await _notice(running, task.id)
        await until(lambda: _hurried(running, notice.id))
        ended = await running.ended(notice.id)
    assert (ended.status, ended.attempts) == (Status.COMPLETED, 4)
    assert await running.outcomes(notice.id) == ["error", "error", "error", "completed"]
    assert len({asked.headers["webhook-id"] for asked in site.asked}) == 1
    assert len({asked.body for asked in site.asked}) == 1


async def _hurried(running: Running, task_id: int) -> bool:
    """Whether it has ended; until then it waits for no other attempt, be that a moment or half a minute away."""
    task = await running.get(task_id)
    if task.status is Status.RETRYING:
        with suppress(Conflict):  # it has just begun
            await running.services.tasks.edit(task_id, Edit({"scheduled_at": None}))
    return task.finished


async def test_a_receiver_that_is_gone_ends_it_and_a_person_can_deliver_it_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["410 Gone", "200 OK"])

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await plain(next(answers))(asked, writer)

    async with serving(answer) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        task = await running.run("echo", payload={"text": "hello"}, webhook_url=site.url)
        notice = await running.ended((await _notice(running, task.id)).id)
        assert (notice.status, notice.failure_reason) == (Status.FAILED, FailureReason.ERROR)
        await running.services.tasks.retry(notice.id)
        assert (await running.ended(notice.id)).status is Status.COMPLETED
    first, second = site.asked
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_a_redirect_to_the_canary_is_not_followed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain()) as canary, serving(redirect(canary.url, 307)) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        task = await running.run("echo", payload={"text": "hello"}, webhook_url=site.url)
        await running.in_status((await _notice(running, task.id)).id, Status.RETRYING)
        assert canary.connections == 0


async def test_a_name_that_leads_inside_by_the_time_of_delivery_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was checked when it was submitted, and is again now."""
    async with serving(plain()) as canary:
        monkeypatch.setenv("OUTBOUND_PORTS", f"80,{canary.port}")
        running = await start()
        task = await running.run("echo", payload={"text": "hello"}, webhook_url=f"http://localhost:{canary.port}/")
        notice = await running.ended((await _notice(running, task.id)).id)
        assert "may not be asked" in (notice.error or "")
        assert canary.connections == 0


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of the specification's own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = signed([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_is_no_base64_is_taken_as_it_is() -> None:
    assert key_of("whsec_!") == b"whsec_!"


@pytest.mark.parametrize("secrets", ["short", ",".join(["long-enough-secret"] * 3), "long-enough-secret,short"])
def test_secrets_that_are_none_are_refused_and_not_shown(secrets: str) -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_SECRETS: must be one or two") as refused:
        load_settings(webhook_secrets=secrets)
    assert secrets not in str(refused.value)


def test_none_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_SECRETS")
    values: Any = load_settings().webhook_keys
    assert values == ()


CRM, CRM_OLD = "crm-secret-0123456789", "whsec_" + base64.b64encode(b"the old secret of the CRM").decode()


async def test_a_subscriber_can_check_either_of_its_own_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain("204 No Content", b"")) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        home = f"http://127.0.0.1:{site.port}"
        monkeypatch.setenv("SECRETS_HOSTS", f"crm={home},crm_old={home}")
        monkeypatch.setenv("SECRET_CRM", CRM)
        monkeypatch.setenv("SECRET_CRM_OLD", CRM_OLD)
        running = await start()
        webhook = await running.services.webhooks.create(
            "", f"{site.url}/in", **(FILTERS | {"secrets": ("crm", "crm_old")})
        )
        task = await running.run("echo", payload={"text": "hello"})
        notice = await running.ended((await _notice(running, task.id)).id)
        (report,) = await running.services.webhooks.deliveries(webhook.id, "", 10)
    (asked,) = site.asked
    assert asked.headers["webhook-signature"].split(" ") == [_signature(one, asked) for one in (CRM, CRM_OLD)]
    assert json.loads(asked.body)["data"]["id"] == task.id
    assert (report.delivery.task_id, report.status_code) == (notice.id, 204)
    assert CRM not in str(notice.payload)


async def test_a_secret_does_not_go_where_it_is_not_meant_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain()) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        monkeypatch.setenv("SECRETS_HOSTS", "crm=api.crm.example")
        monkeypatch.setenv("SECRET_CRM", CRM)
        running = await start()
        webhook = await running.services.webhooks.create("", site.url, **(FILTERS | {"secrets": ("crm",)}))
        sent = await running.services.webhooks.ping(webhook.id)
        await running.in_status(sent.delivery.task_id, Status.RETRYING)
        assert site.asked == []
        (report,) = await running.services.webhooks.deliveries(webhook.id, "", 10)
        assert "may not go to" in str(report.error)
        assert (await running.services.webhooks.get(webhook.id)).failures == 0


async def test_a_receiver_that_is_gone_is_switched_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(plain("410 Gone", b"never again")) as site:
        monkeypatch.setenv("OUTBOUND_ALLOW", f"127.0.0.1:{site.port}")
        running = await start()
        webhook = await running.services.webhooks.create("", site.url, **FILTERS)
        sent = await running.services.webhooks.ping(webhook.id)
        await running.ended(sent.delivery.task_id)
        off = await running.services.webhooks.get(webhook.id)
    assert (off.enabled, off.failures) == (False, 1)
    assert "410" in str(off.switched_off_reason)
