"""Dead letters over HTTP."""

from typing import Any

import httpx
import pytest

from app.core.lifecycle import Errored
from tests.api.conftest import run


async def fail(client: httpx.AsyncClient, *messages: str, **fields: Any) -> list[int]:
    ids = []
    for message in messages:
        answer = await client.post("/tasks", json={"task_type": "echo"} | fields)
        ids.append(answer.json()["id"])
        await run(client, Errored("KeyError", message, retryable=False))
    return ids


async def act(client: httpx.AsyncClient, what: str, **body: Any) -> Any:
    answer = await client.post(f"/dead-letters/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_they_are_listed_newest_first_in_pages(client: httpx.AsyncClient) -> None:
    ids = await fail(client, "order 1", "order 2", "order 3")
    page = (await client.get("/dead-letters", params={"limit": 2})).json()
    assert [item["id"] for item in page["items"]] == ids[:0:-1]
    assert len({item["fingerprint"] for item in page["items"]}) == 1
    rest = (await client.get("/dead-letters", params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == (ids[:1], None)


async def test_groups_and_what_is_done_with_them(client: httpx.AsyncClient) -> None:
    ids = await fail(client, "order 1", "order 2", "out of paper")
    answer = (await client.get("/dead-letters/groups")).json()
    assert answer["total"] == 3
    group = answer["items"][0]
    assert (group["count"], group["task_type"], group["task_ids"]) == (2, "echo", [ids[1], ids[0]])
    assert group["error"]["message"] == "order 2"
    tried = await act(client, "requeue", fingerprint=group["fingerprint"], dry_run=True)
    assert tried == {"dry_run": True, "matched": 2, "changed": 2, "task_ids": ids[:2], "skipped": []}
    done = await act(client, "requeue", fingerprint=group["fingerprint"])
    assert done == tried | {"dry_run": False}
    assert (await client.get(f"/tasks/{ids[0]}")).json()["status"] == "pending"
    await act(client, "resolve", ids=[ids[2]], note="paper was bought")
    task = (await client.get(f"/tasks/{ids[2]}")).json()
    assert (task["status"], task["resolution"]) == ("failed", "paper was bought")
    assert task["resolved_at"] is not None
    assert (await client.get("/dead-letters")).json()["items"] == []


async def test_everything_is_only_meant_when_said(client: httpx.AsyncClient) -> None:
    await fail(client, "a")
    for body in ({}, {"dry_run": True}, {"all": True, "queue": "default"}):
        answer = await client.post("/dead-letters/purge", json=body)
        assert answer.status_code == 422, answer.text
    assert (await act(client, "purge", all=True))["changed"] == 1
    assert (await client.get("/tasks")).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"ids": []},
        {"ids": [0]},
        {"ids": ["1"]},
        {"fingerprint": "x"},
        {"failure_reason": "bad luck"},
        {"queue": "a b"},
        {"unknown": 1},
        {"all": "yes"},
        {"all": True, "note": "not for this one"},
    ],
)
async def test_a_wrong_selection_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post("/dead-letters/requeue", json=body)).status_code == 422


@pytest.mark.parametrize(
    "query", ["failure_reason=x", "fingerprint=1", "cursor=zz", "limit=0", "page=2", "queue=a%20b"]
)
async def test_a_wrong_query_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/dead-letters?{query}")).status_code == 422
    assert (await client.get("/dead-letters/groups?fingerprint=0123456789abcdef")).status_code == 422


@pytest.mark.parametrize(
    ("retry", "where"),
    [
        ({"policy": "random"}, "retry.policy"),
        ({"base_seconds": -1}, "retry.base_seconds"),
        ({"base_seconds": 1e300}, "retry.base_seconds"),
        ({"base_seconds": 5, "ceiling_seconds": 4}, "retry.base_seconds"),
        ({"jitter": 1}, "retry.jitter"),
        ({"tries": 1}, "retry.tries"),
        ("fixed", "retry"),
    ],
)
async def test_a_wrong_retry_policy_is_refused(client: httpx.AsyncClient, retry: object, where: str) -> None:
    answer = await client.post("/tasks", json={"task_type": "echo", "retry": retry})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["location"] == ["body", *where.split(".")]


async def test_a_tasks_own_retry_policy_is_shown_whole(client: httpx.AsyncClient) -> None:
    body = {"task_type": "echo", "retry": {"base_seconds": 2}, "retry_for_seconds": 60}
    task = (await client.post("/tasks", json=body)).json()
    assert task["retry"] == {"base_seconds": 2.0, "ceiling_seconds": 3600.0, "policy": "exponential", "jitter": True}
    assert task["retry_for_seconds"] == 60.0
    assert (await client.post("/tasks", json=body | {"retry_for_seconds": 0})).status_code == 422
