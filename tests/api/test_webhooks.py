"""Subscriptions over HTTP."""

from typing import Any

import httpx
import pytest

from app.core.lifecycle import Errored
from app.core.settings import Settings
from tests.api.conftest import assert_problem, claim, completed, locations, read, run, settle, submit

URL = "https://hooks.example.com/in"
DOWN = Errored("UnexpectedStatus", f"{URL} answered 503 Service Unavailable.", retryable=False)


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRETS", "secret-of-the-tests-1")


async def created(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/webhooks", json={"url": URL} | fields)
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/webhooks/{webhook['id']}"
    return webhook


async def deliveries(client: httpx.AsyncClient, webhook: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = await client.get(f"/webhooks/{webhook['id']}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_one_is_made_listed_read_changed_and_removed(client: httpx.AsyncClient) -> None:
    webhook = await created(client, description="CRM", task_types=["echo"], tags=["red"], secrets=["crm"])
    assert webhook == {
        "id": webhook["id"],
        "url": URL,
        "description": "CRM",
        "events": ["completed", "failed", "cancelled"],
        "task_types": ["echo"],
        "queues": [],
        "tags": ["red"],
        "secrets": ["crm"],
        "tenant": None,
        "enabled": True,
        "failures": 0,
        "failing_since": None,
        "last_error": None,
        "switched_off_at": None,
        "switched_off_reason": None,
        "created_at": webhook["created_at"],
    }
    path = f"/webhooks/{webhook['id']}"
    assert (await client.get("/webhooks")).json() == {"items": [webhook]}
    assert (await client.get(path)).json() == webhook
    answer = await client.patch(path, json={"events": ["failed"], "description": None, "secrets": ["new", "crm"]})
    changed = webhook | {"events": ["failed"], "description": None, "secrets": ["new", "crm"]}
    assert (answer.status_code, answer.json()) == (200, changed)
    off = (await client.patch(path, json={"enabled": False})).json()
    assert (off["enabled"], off["switched_off_reason"]) == (False, None)
    assert off["switched_off_at"] is not None
    assert (await client.patch(path, json={"enabled": True})).json() == changed
    assert (await client.delete(path)).status_code == 204
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries")):
        assert_problem(await client.request(method, path + rest), 404, "not-found")
    assert_problem(await client.patch(path, json={"enabled": True}), 404)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"url": "http://127.0.0.1/"}, "body.url"),
        ({"url": "https://me:pass@example.com/"}, "body.url"),
        ({"url": ""}, "body.url"),
        ({"events": []}, "body.events"),
        ({"events": ["started"]}, "body.events.0"),
        ({"events": ["failed", "failed"]}, "body.events"),
        ({"task_types": ["no spaces"]}, "body.task_types.0"),
        ({"queues": ["q"] * 2}, "body.queues"),
        ({"tags": [str(number) for number in range(21)]}, "body.tags"),
        ({"secrets": ["a", "b", "c"]}, "body.secrets"),
        ({"secrets": ["whsec_Upper|case"]}, "body.secrets.0"),
        ({"description": ""}, "body.description"),
        ({"secret": "x"}, "body.secret"),
    ],
)
async def test_what_makes_no_sense_is_refused_where_it_is(
    client: httpx.AsyncClient, fields: dict[str, Any], where: str
) -> None:
    webhook = await created(client)
    answers = [await client.post("/webhooks", json={"url": URL} | fields)]
    answers.append(await client.patch(f"/webhooks/{webhook['id']}", json=fields))
    for answer in answers:
        assert where in locations(assert_problem(answer, 422))
    assert (await client.get("/webhooks")).json() == {"items": [webhook]}


@pytest.mark.parametrize("patch", [{}, {"enabled": None}, {"events": None}, {"tenant": "north"}])
async def test_a_patch_says_something(client: httpx.AsyncClient, patch: dict[str, Any]) -> None:
    webhook = await created(client)
    assert_problem(await client.patch(f"/webhooks/{webhook['id']}", json=patch), 422)


async def test_nothing_is_sent_unsigned(serve: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_SECRETS")
    client = await serve(Settings(**settings.model_dump(exclude={"webhook_secrets"})))
    problem = assert_problem(await client.post("/webhooks", json={"url": URL}), 422)
    assert locations(problem) == {"body.secrets"}
    webhook = await created(client, secrets=["crm"])
    assert_problem(await client.patch(f"/webhooks/{webhook['id']}", json={"secrets": []}), 422)


async def test_there_may_be_only_so_many(serve: Any, settings: Settings) -> None:
    client = await serve(settings.model_copy(update={"max_webhooks": 1}))
    await created(client)
    problem = assert_problem(await client.post("/webhooks", json={"url": URL}), 409)
    assert "MAX_WEBHOOKS" in problem["detail"]


async def test_deliveries_are_shown_newest_first_by_pages(client: httpx.AsyncClient) -> None:
    webhook = await created(client, events=["completed"])
    ids = [(await submit(client))["id"] for _ in range(3)]
    await run(client, completed())
    first = await deliveries(client, webhook, limit=2)
    second = await deliveries(client, webhook, limit=2, cursor=first["next_cursor"])
    assert [one["subject_id"] for one in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    one = second["items"][0]
    assert one == {
        "task_id": one["task_id"],
        "event": "task.completed",
        "message_id": one["message_id"],
        "subject_id": ids[0],
        "status": "pending",
        "attempts": 0,
        "max_attempts": 15,
        "status_code": None,
        "error": None,
        "attempted_at": None,
        "duration_seconds": None,
        "next_attempt_at": None,
        "created_at": one["created_at"],
        "finished_at": None,
    }
    assert (await read(client, one["task_id"]))["task_type"] == "webhook"
    assert_problem(await client.get(f"/webhooks/{webhook['id']}/deliveries?state=failed"), 422)


async def test_it_is_tried_out_and_repeated(client: httpx.AsyncClient) -> None:
    webhook = await created(client, queues=["mail"])
    answer = await client.post(f"/webhooks/{webhook['id']}/test")
    assert answer.status_code == 202
    sent = answer.json()
    assert (sent["event"], sent["status"], sent["subject_id"]) == ("webhook.test", "pending", None)
    path = f"/webhooks/{webhook['id']}/deliveries/{sent['task_id']}/redeliver"
    assert_problem(await client.post(path), 409)
    (task,) = await claim(client)
    assert task.queue == "mail"
    await settle(client, [task], DOWN)
    (failed,) = (await deliveries(client, webhook, status="failed"))["items"]
    assert (failed["status_code"], failed["error"]) == (503, DOWN.message)
    answer = await client.post(path)
    assert answer.status_code == 202
    assert answer.json()["message_id"] == sent["message_id"]
    assert answer.json()["task_id"] != sent["task_id"]
    assert len((await deliveries(client, webhook))["items"]) == 2
    unknown = f"/webhooks/{webhook['id']}/deliveries/999999/redeliver"
    assert_problem(await client.post(unknown), 404)
    assert (await client.get(f"/webhooks/{webhook['id']}")).json()["failures"] == 1
