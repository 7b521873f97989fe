"""Every route by which an operator changes something leaves an entry in the audit log, and only what was done is in it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.api.routes import DirectRoute
from app.core.audit import COMMAND_LINE, Action, Actor
from app.core.keys import Scope
from app.core.settings import Settings
from app.models import audit as rows
from app.models.audit import AuditFilter
from app.services.wiring import Services
from tests.api.conftest import assert_problem, finished, submit
from tests.conftest import FrozenClock
from tests.security.conftest import House, locked, plain, serving

__all__ = ["locked"]

READS = {"GET", "HEAD"}
Call = Callable[[House], Awaitable[httpx.Response]]


async def _task(house: House, **fields: Any) -> int:
    return await house.submitted("submit", **fields)


async def _dead(house: House) -> int:
    client = house.client
    client.headers["Authorization"] = f"Bearer {house.keys['all']}"
    task = await finished(client, "failed")
    del client.headers["Authorization"]
    return int(task["id"])


async def _edit(house: House) -> httpx.Response:
    return await house.ask("PATCH", f"/tasks/{await _task(house, delay_seconds=60)}", "manage", json={"priority": 5})


async def _cancel(house: House) -> httpx.Response:
    return await house.ask("POST", f"/tasks/{await _task(house)}/cancel", "manage")


async def _retry(house: House) -> httpx.Response:
    return await house.ask("POST", f"/tasks/{await _dead(house)}/retry", "manage")


async def _delete(house: House) -> httpx.Response:
    return await house.ask("DELETE", f"/tasks/{await _task(house)}", "manage")


async def _delete_file(house: House) -> httpx.Response:
    return await house.ask("DELETE", f"/files/{await house.uploaded('submit')}", "manage")


def _letters(action: str) -> Call:
    async def call(house: House) -> httpx.Response:
        chosen = {"ids": [await _dead(house)]}
        return await house.ask("POST", f"/dead-letters/{action}", "manage", json=chosen)

    return call


def _simple(method: str, path: str, key: str = "manage", **parts: Any) -> Call:
    async def call(house: House) -> httpx.Response:
        return await house.ask(method, path, key, **parts)

    return call


async def _revoke(house: House) -> httpx.Response:
    key, _ = await house.services.keys.create("old", [Scope.READ])
    return await house.ask("DELETE", f"/api-keys/{key.id}", "admin")


SILENCE = {"rule": "queue-old", "seconds": 60, "note": "planned"}


async def _end_silence(house: House) -> httpx.Response:
    made = await house.ask("POST", "/alerts/silences", "manage", json=SILENCE)
    return await house.ask("DELETE", f"/alerts/silences/{made.json()['id']}", "manage")


async def _webhook(house: House) -> str:
    made = await house.ask("POST", "/webhooks", "manage", json=WEBHOOK)
    return f"/webhooks/{made.json()['id']}"


async def _change_webhook(house: House) -> httpx.Response:
    return await house.ask("PATCH", await _webhook(house), "manage", json={"enabled": False})


async def _delete_webhook(house: House) -> httpx.Response:
    return await house.ask("DELETE", await _webhook(house), "manage")


async def _test_webhook(house: House) -> httpx.Response:
    return await house.ask("POST", f"{await _webhook(house)}/test", "manage")


async def _redeliver(house: House) -> httpx.Response:
    path = await _webhook(house)
    sent = (await house.ask("POST", f"{path}/test", "manage")).json()["task_id"]
    await house.ask("POST", f"/tasks/{sent}/cancel", "manage")
    return await house.ask("POST", f"{path}/deliveries/{sent}/redeliver", "manage")


WEBHOOK = {"url": "https://hooks.example.com/", "secrets": ["crm"]}
CALLS: dict[tuple[str, str], tuple[Call, Action]] = {
    ("PATCH", "/tasks/{task_id}"): (_edit, Action.TASK_EDIT),
    ("POST", "/tasks/{task_id}/cancel"): (_cancel, Action.TASK_CANCEL),
    ("POST", "/tasks/{task_id}/retry"): (_retry, Action.TASK_RETRY),
    ("DELETE", "/tasks/{task_id}"): (_delete, Action.TASK_DELETE),
    ("DELETE", "/files/{file_id}"): (_delete_file, Action.FILE_DELETE),
    ("POST", "/dead-letters/requeue"): (_letters("requeue"), Action.DEAD_LETTERS_REQUEUE),
    ("POST", "/dead-letters/resolve"): (_letters("resolve"), Action.DEAD_LETTERS_RESOLVE),
    ("POST", "/dead-letters/purge"): (_letters("purge"), Action.DEAD_LETTERS_PURGE),
    ("POST", "/queues/{name}/pause"): (_simple("POST", "/queues/mail/pause"), Action.QUEUE_CHANGE),
    ("POST", "/queues/{name}/resume"): (_simple("POST", "/queues/mail/resume"), Action.QUEUE_CHANGE),
    ("PATCH", "/queues/{name}"): (_simple("PATCH", "/queues/mail", json={"max_running": 5}), Action.QUEUE_CHANGE),
    ("POST", "/breakers/{name}/trip"): (
        _simple("POST", "/breakers/echo/trip", json={"reason": "mended"}),
        Action.BREAKER_TRIP,
    ),
    ("POST", "/breakers/{name}/reset"): (_simple("POST", "/breakers/echo/reset"), Action.BREAKER_RESET),
    ("POST", "/api-keys"): (
        _simple("POST", "/api-keys", "admin", json={"name": "ci", "scopes": ["read"]}),
        Action.KEY_CREATE,
    ),
    ("DELETE", "/api-keys/{key_id}"): (_revoke, Action.KEY_REVOKE),
    ("POST", "/webhooks"): (_simple("POST", "/webhooks", json=WEBHOOK), Action.WEBHOOK_CREATE),
    ("PATCH", "/webhooks/{webhook_id}"): (_change_webhook, Action.WEBHOOK_CHANGE),
    ("DELETE", "/webhooks/{webhook_id}"): (_delete_webhook, Action.WEBHOOK_DELETE),
    ("POST", "/webhooks/{webhook_id}/test"): (_test_webhook, Action.WEBHOOK_TEST),
    ("POST", "/webhooks/{webhook_id}/deliveries/{task_id}/redeliver"): (_redeliver, Action.WEBHOOK_REDELIVER),
    ("POST", "/alerts/silences"): (_simple("POST", "/alerts/silences", json=SILENCE), Action.SILENCE_CREATE),
    ("DELETE", "/alerts/silences/{silence_id}"): (_end_silence, Action.SILENCE_END),
    ("POST", "/alerts/test"): (_simple("POST", "/alerts/test"), Action.ALERTS_TEST),
}


async def test_every_unsafe_route_of_operators_leaves_an_entry(locked: Any) -> None:
    async with serving(plain("200 OK", b"ok")) as site:
        given = Settings(alert_slack_url=site.url, outbound_allow=(f"127.0.0.1:{site.port}",))  # type: ignore[arg-type]
        house: House = await locked(alert_slack_url=given.alert_slack_url, outbound_allow=given.outbound_allow)
        routes = {
            (method, route.path_format)
            for route in house.client.app.routes  # type: ignore[attr-defined]
            if isinstance(route, DirectRoute) and route.access.scope in (Scope.MANAGE, Scope.ADMIN)
            for method in (route.methods or set()) - READS
        }
        assert routes == CALLS.keys()
        for (method, path), (call, action) in CALLS.items():
            before = await _count(house.services)
            answer = await call(house)
            assert answer.is_success, (method, path, answer.text)
            newest, *_ = await house.services.audit.search(AuditFilter(), 1)
            assert await _count(house.services) >= before + 1, (method, path)
            assert (newest.action, newest.address) == (action.value, "127.0.0.1"), (method, path)
            assert newest.key_name == ("admin" if "api-keys" in path else "manage"), (method, path)
            assert newest.key_id is not None


async def _count(services: Services) -> int:
    async with services.database.read() as connection:
        return await connection.scalar(text("SELECT count(*) FROM audit_log")) or 0


def test_every_action_is_one_of_a_route_or_of_the_command_line() -> None:
    assert {action for _, action in CALLS.values()} == set(Action) - {Action.KEY_REMOVE}


async def test_an_entry_says_what_was_and_what_is(client: httpx.AsyncClient) -> None:
    asked = {"delay_seconds": 60, "metadata": {"who": "Zoë", "password": "open sesame"}}
    task_id = (await submit(client, **asked))["id"]
    changes = {"priority": "high", "metadata": {"who": "Ann", "password": "closed sesame"}}
    await client.patch(f"/tasks/{task_id}", json=changes)
    await client.post(f"/tasks/{task_id}/cancel")
    cancelled, edited = (await client.get("/audit")).json()["items"]
    assert (edited["action"], edited["target"]) == ("task.edit", f"task {task_id}")
    assert edited["before"] == {"priority": 0, "metadata": {"who": "Zoë", "password": "[redacted]"}}
    assert edited["after"] == {"priority": 50, "metadata": {"who": "Ann", "password": "[redacted]"}}
    assert (cancelled["before"]["status"], cancelled["after"]["status"]) == ("scheduled", "cancelled")
    assert "priority" not in cancelled["after"], "what has not changed is left out"
    assert (edited["key_id"], edited["key_name"], edited["tenant"]) == (None, "anonymous", None)
    assert "sesame" not in str((cancelled, edited))


async def test_what_was_refused_or_only_tried_is_not_in_it(client: httpx.AsyncClient) -> None:
    task = await finished(client, "completed")
    await finished(client, "failed")
    assert_problem(await client.post(f"/tasks/{task['id']}/cancel"), 409)
    assert_problem(await client.delete("/tasks/999999"), 404)
    for action in ("requeue", "resolve", "purge"):
        await client.post(f"/dead-letters/{action}", json={"all": True, "dry_run": True})
    assert (await client.get("/audit")).json()["items"] == []


async def test_without_its_entry_nothing_is_done(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are one transaction."""
    task_id = (await submit(client))["id"]

    async def fail(*_: Any) -> None:
        raise RuntimeError("the log cannot be written")

    monkeypatch.setattr(rows, "add", fail)
    assert (await client.post(f"/tasks/{task_id}/cancel")).status_code == 500
    assert (await client.get(f"/tasks/{task_id}")).json()["status"] == "pending"


async def test_no_token_of_a_key_is_in_it(locked: Any) -> None:
    house: House = await locked()
    made = (await house.ask("POST", "/api-keys", "admin", json={"name": "ci", "scopes": ["read"]})).json()
    answer = await house.ask("GET", "/audit", "manage", params={"action": "key.create"})
    (entry,) = answer.json()["items"]
    assert (entry["target"], entry["after"]["name"], entry["after"]["scopes"]) == (f"key {made['id']}", "ci", ["read"])
    assert made["key"].split(".")[1] not in answer.text
    assert "digest" not in answer.text


async def test_a_tenant_sees_what_its_own_keys_did(locked: Any) -> None:
    house: House = await locked()
    for key in ("north", "south"):
        task_id = await house.submitted(key)
        assert (await house.ask("POST", f"/tasks/{task_id}/cancel", key)).status_code == 200
    mine = await house.submitted("north")
    assert (await house.ask("POST", f"/tasks/{mine}/cancel", "manage")).status_code == 200
    seen = {}
    for key in ("north-manage", "south-manage", "manage", "admin"):
        items = (await house.ask("GET", "/audit", key)).json()["items"]
        seen[key] = {entry["tenant"] for entry in items}
    assert seen.pop("north-manage") == {"north"}
    assert seen.pop("south-manage") == {"south"}
    assert list(seen.values()) == 2 * [{"north", "south", None}]
    assert (await house.ask("GET", "/audit", "read")).status_code == 403


async def test_it_can_be_filtered_and_paged(serve: Any, settings: Settings) -> None:
    client = await serve(settings)
    for _ in range(3):
        for verb in ("pause", "resume"):
            await client.post(f"/queues/mail/{verb}")
    task_id = (await submit(client))["id"]
    await client.delete(f"/tasks/{task_id}")

    async def found(**params: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await client.get("/audit", params=params)).json()["items"]
        return items

    assert len(await found()) == 7
    assert [one["target"] for one in await found(action="task.delete")] == [f"task {task_id}"]
    assert len(await found(target="queue mail")) == 6
    assert await found(key="tk00") == []
    newest = (await found())[0]["at"]
    assert newest in [one["at"] for one in await found(since=newest)]
    assert newest not in [one["at"] for one in await found(until=newest)]
    ids, cursor = [], None
    while True:
        page = (await client.get("/audit", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        ids += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids == [one["id"] for one in await found()]
    assert_problem(await client.get("/audit?actoin=x"), 422)
    assert_problem(await client.get("/audit?action=nonsense"), 422)


async def test_what_is_old_is_pruned(services: Services, clock: FrozenClock) -> None:
    by = Actor(None, "ann")
    await services.limits.change("mail", {"paused": True}, by)
    clock.forward(60 * 86400)
    await services.limits.change("mail", {"paused": False}, by)
    clock.forward(31 * 86400)
    await services.audit.prune()
    (left,) = await services.audit.search(AuditFilter(), 10)
    assert (left.before, left.after) == ('{"paused":true}', '{"paused":false}')
    assert "prune the audit log" in set(services.upkeep.chores)


async def test_what_the_service_does_by_itself_is_not_in_it(services: Services) -> None:
    await services.limits.change("mail", {"paused": True})
    key, _ = await services.keys.create("ci", [Scope.READ], "", timedelta(days=1), by=COMMAND_LINE)
    await services.keys.revoke(key.id, by=COMMAND_LINE)
    await services.keys.remove(key.id, by=COMMAND_LINE)
    entries = await services.audit.search(AuditFilter(), 10)
    assert [(one.action, one.key_name) for one in entries] == [
        (action, "command line") for action in ("key.remove", "key.revoke", "key.create")
    ]


async def test_a_large_batch_of_dead_letters_is_told_with_how_many(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await finished(client, "failed")
    await client.post("/dead-letters/resolve", json={"task_type": "echo", "note": "seen to"})
    (entry,) = (await client.get("/audit")).json()["items"]
    assert (entry["target"], entry["before"]) == ("dead letters", {"chosen": {"task_type": "echo"}})
    assert (entry["after"]["changed"], entry["after"]["note"]) == (3, "seen to")
