import asyncio
import base64
from typing import Any

import httpx
import pytest

from app.api.schemas import TaskPage
from app.services import tasks as service
from tests.api.conftest import assert_problem, claim, completed, errored, finished, locations, run, settle, submit


async def listed(client: httpx.AsyncClient, **params: Any) -> list[int]:
    """Ids of one page."""
    answer = await client.get("/tasks", params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def bulk(client: httpx.AsyncClient, *tasks: dict[str, Any]) -> list[int]:
    answer = await client.post("/tasks/bulk", json={"tasks": [{"task_type": "echo"} | task for task in tasks]})
    assert answer.status_code == 201, answer.text
    ids: list[int] = answer.json()["ids"]
    return ids


@pytest.mark.parametrize("path", ["/tasks", "/tasks/"])
async def test_an_empty_list_is_a_list(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"items": [], "next_cursor": None}


async def test_the_newest_come_first_fifty_a_page(client: httpx.AsyncClient) -> None:
    ids = await bulk(client, *({} for _ in range(60)))
    assert await listed(client) == sorted(ids, reverse=True)[:50]


@pytest.mark.parametrize("limit", [1, 7, 40, 119, 120, 121, 500])
async def test_pages_have_no_gaps_and_no_repeats_while_new_tasks_arrive(client: httpx.AsyncClient, limit: int) -> None:
    ids = await bulk(client, *({} for _ in range(120)))
    seen: list[int] = []
    cursor = None
    while True:
        params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/tasks", params=params)).json()
        seen += [item["id"] for item in page["items"]]
        assert len(page["items"]) <= limit
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == limit
        await submit(client)
    assert seen == sorted(ids, reverse=True)


async def test_a_page_that_ends_exactly_at_the_end_has_no_next(client: httpx.AsyncClient) -> None:
    await bulk(client, {}, {}, {})
    assert (await client.get("/tasks?limit=3")).json()["next_cursor"] is None
    assert (await client.get("/tasks?limit=2")).json()["next_cursor"] is not None


async def test_a_cursor_survives_the_deletion_of_the_task_it_stands_on(client: httpx.AsyncClient) -> None:
    ids = await bulk(client, *({} for _ in range(10)))
    page = (await client.get("/tasks?limit=4")).json()
    await client.delete(f"/tasks/{page['items'][-1]['id']}")
    assert await listed(client, cursor=page["next_cursor"]) == ids[5::-1]


async def test_a_cursor_keeps_to_the_filters_it_is_used_with(client: httpx.AsyncClient) -> None:
    ids = await bulk(client, *({"queue": f"q{n % 2}"} for n in range(20)))
    page = (await client.get("/tasks?queue=q1&limit=3")).json()
    assert await listed(client, queue="q1", cursor=page["next_cursor"]) == ids[1::2][::-1][3:]


async def test_each_status_can_be_asked_for_alone_and_with_others(client: httpx.AsyncClient) -> None:
    ids = {}
    for status in ("completed", "failed", "cancelled"):
        ids[status] = (await finished(client, status))["id"]
    ids["retrying"] = (await submit(client))["id"]
    await run(client, errored(after_seconds=600))
    ids["running"] = (await submit(client))["id"]
    await claim(client)
    ids["scheduled"] = (await submit(client, delay_seconds=600))["id"]
    ids["pending"] = (await submit(client))["id"]
    for status, task_id in ids.items():
        assert await listed(client, status=status) == [task_id], status
    assert await listed(client, status="blocked") == []
    assert await listed(client, status=["failed", "pending", "failed"]) == [ids["pending"], ids["failed"]]
    assert sorted(await listed(client, status=[*ids, "blocked"])) == sorted(ids.values())


async def test_every_filter_works_alone(client: httpx.AsyncClient) -> None:
    (parent,) = await bulk(client, {"task_type": "echo_shared"})
    (queued,) = await bulk(client, {"queue": "mail"})
    (tagged,) = await bulk(client, {"tags": ["red", "big_one"]})
    (child,) = await bulk(client, {"parent_id": parent})
    assert await listed(client, task_type="echo_shared") == [parent]
    assert await listed(client, queue="mail") == [queued]
    assert await listed(client, tag="red") == [tagged]
    assert await listed(client, tag="big_one") == [tagged]
    assert await listed(client, parent_id=parent) == [child]
    assert await listed(client, task_type="nobody") == await listed(client, parent_id=2**63 - 1) == []


@pytest.mark.parametrize("tag", ["re", "ed", "red.", "big_one", "___", "big", "r.d", "RED", "Red", "red:bigXone"])
async def test_a_tag_is_found_by_its_whole_exact_name_alone(client: httpx.AsyncClient, tag: str) -> None:
    await submit(client, tags=["red", "bigXone"])
    assert await listed(client, tag=tag) == []


@pytest.mark.parametrize("name", ["MAIL", "mai", "mail_"])
async def test_a_queue_is_found_by_its_whole_exact_name_alone(client: httpx.AsyncClient, name: str) -> None:
    await submit(client, queue="mail")
    assert await listed(client, queue=name) == []


async def test_filters_combine(client: httpx.AsyncClient) -> None:
    tasks = [{"queue": f"q{n % 2}", "tags": [f"t{n % 3}"], "delay_seconds": 600 * (n % 5 == 0)} for n in range(60)]
    ids = await bulk(client, *tasks)
    wanted = [
        task_id
        for n, task_id in enumerate(ids)
        if n % 2 == 1 and n % 3 == 2 and n % 5 == 0 and tasks[n]["queue"] == "q1"
    ]
    assert wanted
    found = await listed(client, queue="q1", tag="t2", status="scheduled", task_type="echo", limit=500)
    assert found == wanted[::-1]


async def test_tasks_are_found_by_when_they_were_created(client: httpx.AsyncClient) -> None:
    first = await submit(client)
    moment = first["created_at"]
    assert await listed(client, created_after=moment) == []
    assert await listed(client, created_before=moment) == []
    assert await listed(client, created_after="2000-01-01T00:00:00Z", created_before="2100-01-01T00:00:00Z") == [1]
    assert await listed(client, created_after="2000-01-01T00:00:00-05:00") == [1]
    assert await listed(client, created_after="2100-01-01T00:00:00Z") == []
    assert await listed(client, created_before="9999-12-31T23:59:59-14:00") == [1]
    assert await listed(client, created_after="9999-12-31T23:59:59-14:00") == []
    assert await listed(client, created_after="0001-01-01T00:00:00+14:00") == [1]
    assert await listed(client, created_before="0001-01-01T00:00:00+14:00") == []


async def test_a_list_has_no_payloads_and_no_results_unless_asked_for(client: httpx.AsyncClient) -> None:
    await submit(client, payload={"number": 4})
    await run(client, completed({"n": 1}))
    (item,) = (await client.get("/tasks")).json()["items"]
    assert "payload" not in item
    assert "result" not in item
    for include in ("payload", "result", "payload,result", "result,payload"):
        (item,) = (await client.get("/tasks", params={"include": include})).json()["items"]
        given = {name: item[name] for name in ("payload", "result") if name in item}
        whole = {"payload": {"number": 4}, "result": {"n": 1}}
        assert given == {name: whole[name] for name in include.split(",")}


async def test_a_list_says_why_tasks_wait_where_it_is_asked_to(client: httpx.AsyncClient) -> None:
    done = await finished(client, "completed")
    waiting = await submit(client)
    page = (await client.get("/tasks?include=waiting_reason,payload")).json()
    reason = {"reason": "no_worker", "message": "No worker is alive.", "until": None}
    assert [(item["id"], item["waiting_reason"]) for item in page["items"]] == [
        (waiting["id"], reason),
        (done["id"], None),
    ]
    assert page["items"][0]["payload"] == {}
    TaskPage.model_validate_json((await client.get("/tasks?include=waiting_reason")).content, extra="forbid")
    assert "waiting_reason" not in (await client.get("/tasks")).json()["items"][0]


async def test_whole_tasks_come_at_most_a_hundred_a_page(client: httpx.AsyncClient) -> None:
    ids = await bulk(client, *({} for _ in range(130)))
    page = (await client.get("/tasks?include=payload&limit=500")).json()
    assert [item["id"] for item in page["items"]] == ids[:-101:-1]
    rest = (await client.get("/tasks", params={"include": "payload", "cursor": page["next_cursor"]})).json()
    assert [item["id"] for item in rest["items"]] == ids[29::-1]


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


WRONG = {
    "q": ["", "x" * 201],
    "limit": ["0", "-1", "501", "x", "", "1.5", "nan", "9" * 30, "9" * 5000, "\x00", "1e2"],
    "status": ["", "done", "PENDING", "pending,failed", "\x00", "'; drop table tasks; --"],
    "task_type": ["", "a b", "x" * 65, "\x00", "é", "%"],
    "queue": ["", "a b", "x" * 65, "*"],
    "tag": ["", "a|b", "%", "a\n"],
    "created_after": ["", "today", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "nan", "inf", "9" * 40, "\x00"],
    "created_before": ["", "x", "2030-01-01", "2030-01-01T25:00:00Z"],
    "parent_id": ["0", "-1", "x", "", str(2**63), "9" * 5000, "nan"],
    "cursor": [
        "",
        "x",
        "é",
        "\x00",
        "=" * 4,
        "A" * 100,
        "A" * 101,
        encoded("before:"),
        encoded("before:-1"),
        encoded("x"),
    ],
    "include": [
        "",
        "everything",
        "payload,",
        "waiting_reason,waiting_reason",
        "waiting-reason",
        "payload,result,payload",
        "PAYLOAD",
        "payload result",
    ],
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_parameter_is_refused_by_name(client: httpx.AsyncClient, name: str) -> None:
    for value in WRONG[name]:
        answer = await client.get("/tasks", params={name: value})
        problem = assert_problem(answer, 422, "invalid-request")
        assert {where.rsplit(".", 1)[0] if where.count(".") > 1 else where for where in locations(problem)} == {
            f"query.{name}"
        }, value


async def test_cursors_that_somebody_made_up_never_break_anything(client: httpx.AsyncClient) -> None:
    await submit(client)
    for text in ("before:0", "before:" + "9" * 18, "before:" + "9" * 19, "before:1;2", "before:١", "\x00", "{}"):
        answer = await client.get("/tasks", params={"cursor": encoded(text)})
        assert answer.status_code in (200, 422), text


async def test_lists_are_whole_while_tasks_are_submitted_at_once(client: httpx.AsyncClient) -> None:
    async def look() -> None:
        for _ in range(5):
            ids = await listed(client, limit=500)
            assert ids == sorted(ids, reverse=True)

    await asyncio.gather(*(submit(client) for _ in range(60)), *(look() for _ in range(4)))
    assert len(await listed(client, limit=500)) == 60
    await settle(client, await claim(client, 60), completed(1))
    assert len(await listed(client, status="completed", limit=500)) == 60


async def found(client: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await client.get("/tasks", params=params)
    assert answer.status_code == 200, answer.text
    TaskPage.model_validate_json(answer.content, extra="forbid")
    page: dict[str, Any] = answer.json()
    return page


async def test_a_text_is_found_in_payload_result_and_error(client: httpx.AsyncClient) -> None:
    done = await finished(client, "completed")
    failed = await finished(client, "failed", payload={"what": "a needle"})
    waiting = await submit(client, payload={"what": 'the "Grüße" of a needle \\ 100%_'})
    expected = {
        "needle": [waiting["id"], failed["id"]],
        '"number":1': [done["id"]],
        "no good": [failed["id"]],
        'the "Grüße"': [waiting["id"]],
        "\\ 100%_": [waiting["id"]],
        "Needle": [],
        "n_edle": [],
        "%": [waiting["id"]],
        "\x00": [],
        "'; DROP TABLE tasks; --": [],
    }
    for text, ids in expected.items():
        page = await found(client, q=text)
        assert [item["id"] for item in page["items"]] == ids, text
        assert (page["searched"], page["next_cursor"]) == ({"tasks": 3, "back_to_id": None}, None)
        assert "payload" not in str(page["items"])
    assert [item["id"] for item in (await found(client, q="number"))["items"]] == [done["id"]]
    assert (await found(client, q="needle", status="failed"))["searched"]["tasks"] == 1


async def test_a_search_goes_on_where_it_stopped(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_SCANNED", 40)
    monkeypatch.setattr(service, "FIRST_SCANNED", 7)
    ids = await bulk(client, *({"payload": {"number": n % 3}} for n in range(100)))
    wanted = [id_ for n, id_ in enumerate(ids) if n % 3 == 1][::-1]
    for limit in (3, 100):
        seen: list[int] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await found(client, q='r":1', limit=limit, **cursor)
            assert len(page["items"]) <= limit
            assert 0 < page["searched"]["tasks"] <= 40 or not page["items"]
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == wanted
