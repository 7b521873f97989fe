import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.conftest import (
    JSON,
    assert_problem,
    claim,
    finished,
    locations,
    read,
    row_count,
    services_of,
    submit,
)

FIELDS_WITH_DEFAULTS = {
    "id": 1,
    "task_type": "echo",
    "status": "pending",
    "queue": "default",
    "priority": 0,
    "attempts": 0,
    "max_attempts": 3,
    "timeout_seconds": 300.0,
    "progress": None,
    "error": None,
    "failure_reason": None,
    "scheduled_at": None,
    "started_at": None,
    "finished_at": None,
    "expires_at": None,
    "cancel_requested_at": None,
    "worker_id": None,
    "retry": None,
    "retry_for_seconds": None,
    "webhook_url": None,
    "resolved_at": None,
    "resolution": None,
    "unique_key": None,
    "concurrency_key": None,
    "concurrency_limit": None,
    "parent_id": None,
    "tags": [],
    "metadata": None,
    "payload": {},
    "result": None,
}


def at(**forward: float) -> str:
    return (datetime.now(UTC) + timedelta(**forward)).isoformat()


def moment(value: str) -> datetime:
    return datetime.fromisoformat(value)


async def refused(client: httpx.AsyncClient, code: int = 422, /, **fields: Any) -> dict[str, Any]:
    """Submit what must be refused; nothing may be stored."""
    before = await row_count(client)
    problem = assert_problem(await client.post("/tasks", json={"task_type": "echo"} | fields), code)
    assert await row_count(client) == before
    return problem


@pytest.mark.parametrize("path", ["/tasks", "/tasks/"])
async def test_every_default_is_filled_in_and_shown(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"task_type": "echo"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/tasks/1"
    assert answer.headers["content-type"] == "application/json"
    assert "idempotency-replayed" not in answer.headers
    task = answer.json()
    created_at = task.pop("created_at")
    assert created_at.endswith("Z")
    assert abs(datetime.now(UTC) - moment(created_at)) < timedelta(minutes=1)
    assert task == FIELDS_WITH_DEFAULTS


async def test_every_given_field_is_stored_and_shown(client: httpx.AsyncClient) -> None:
    parent = await submit(client)
    given = {
        "task_type": "echo",
        "payload": {"number": 5},
        "queue": "mail:fast.1_a-b",
        "priority": -7,
        "max_attempts": 9,
        "timeout_seconds": 1.5,
        "unique_key": "invoice#7/~!",
        "tags": ["a", "b.c"],
        "metadata": {"for": ["Zoë", None, 1.5, {"deep": True}]},
        "parent_id": parent["id"],
    }
    answer = await client.post("/tasks", json=given | {"scheduled_at": at(hours=1), "expires_at": at(hours=2)})
    assert answer.status_code == 201
    task = await read(client, answer.json()["id"])
    assert {name: task[name] for name in given} == given
    assert task["status"] == "scheduled"


async def test_the_answer_to_a_submission_is_what_a_look_afterwards_shows(client: httpx.AsyncClient) -> None:
    for fields in (
        {"scheduled_at": "2030-01-02T03:04:05.678901Z"},
        {"expires_at": "2030-01-02T13:04:06.123456+02:30"},
        {"delay_seconds": 3600.0001},
        {"timeout_seconds": 0.1, "payload": {"number": 2}, "metadata": {"b": 1, "a": 2}},
    ):
        answer = await client.post("/tasks", json={"task_type": "echo", **fields})
        assert answer.status_code == 201, answer.text
        assert answer.json() == await read(client, answer.json()["id"]), fields


@pytest.mark.parametrize(
    ("given", "stored"),
    [("low", -50), ("normal", 0), ("high", 50), ("critical", 100), (-100, -100), (100, 100), (3, 3)],
)
async def test_priorities_go_by_number_and_by_name(client: httpx.AsyncClient, given: Any, stored: int) -> None:
    assert (await submit(client, priority=given))["priority"] == stored


async def test_higher_priorities_are_claimed_first(client: httpx.AsyncClient) -> None:
    ids = {priority: (await submit(client, priority=priority))["id"] for priority in ("low", 7, "critical", "normal")}
    assert [task.id for task in await claim(client)] == [ids[name] for name in ("critical", 7, "normal", "low")]


REFUSED_VALUES: dict[str, list[Any]] = {
    "task_type": [None, 5, "", "a b", "x" * 65, "echo\n", "écho", [], {}],
    "payload": [None, [], "x", 1, True],
    "queue": ["", "a b", "x" * 65, "queue\n", "a/b", "ü", 5, True, []],
    "priority": [101, -101, 1.0, 0.5, True, "5", "HIGH", "urgent", "", None, [], 2**63 - 1, -(2**63)],
    "scheduled_at": ["", "soon", "2030-01-01", "2030-01-01T00:00:00", "1999-12-31T23:59:59Z", "9999-12-31T00:00:00Z"],
    "delay_seconds": [-1, -0.001, "5", True, 1e300, 3650 * 86400 + 1, []],
    "expires_at": ["2001-01-01T00:00:00Z", "2030-01-01T00:00:00", 0, True, "9999-01-01T00:00:00Z"],
    "max_attempts": [0, -1, 1001, 1.0, "3", True, 2**62],
    "timeout_seconds": [0, -1, 604801, "5", True, 1e308, 0.0],
    "unique_key": ["", "a b", "x" * 256, "tab\t", "ü", 5, True],
    "tags": [["a", "a"], ["a b"], [""], [5], "a", {}, ["x" * 65], [f"t{n}" for n in range(21)], None],
    "metadata": [[], "x", 5, True, {"x": "y" * 16384}, {f"k{n}": 1 for n in range(51)}],
    "parent_id": [0, -1, 1.0, "1", True, 2**63 - 1, []],
}


@pytest.mark.parametrize("name", REFUSED_VALUES)
async def test_a_wrong_value_is_refused_by_name_and_not_stored(client: httpx.AsyncClient, name: str) -> None:
    for value in REFUSED_VALUES[name]:
        problem = await refused(client, **{name: value})
        assert problem["errors"], value
        assert name.split("_")[0] in problem["detail"], (value, problem)


async def test_the_limits_themselves_are_taken(client: httpx.AsyncClient) -> None:
    for fields in (
        {"queue": "q" * 64},
        {"unique_key": "!" * 255},
        {"max_attempts": 1},
        {"max_attempts": 1000},
        {"timeout_seconds": 604800},
        {"timeout_seconds": 0.001},
        {"delay_seconds": 0},
        {"delay_seconds": 3650 * 86400},
        {"tags": [f"{n:064d}" for n in range(20)]},
        {"metadata": {"x": "y" * (16384 - len('{"x":""}'))}},
        {"metadata": {f"k{n}": n for n in range(50)}},
        {"metadata": None, "queue": None, "unique_key": None, "max_attempts": None, "timeout_seconds": None},
    ):
        await submit(client, **fields)


async def test_metadata_is_measured_in_bytes_not_characters(client: httpx.AsyncClient) -> None:
    await refused(client, metadata={"x": "é" * 8200})


async def test_unknown_fields_are_refused_with_their_names(client: httpx.AsyncClient) -> None:
    problem = await refused(client, prioriti=5, id=7, status="completed")
    assert locations(problem) == {"body.prioriti", "body.id", "body.status"}


async def test_every_fault_of_a_body_is_named_at_once(client: httpx.AsyncClient) -> None:
    problem = await refused(client, queue="a b", max_attempts=0, tags=["x y"])
    assert locations(problem) == {"body.queue", "body.max_attempts", "body.tags.0"}


async def test_what_was_wrong_is_not_echoed(client: httpx.AsyncClient) -> None:
    """A value may be a secret in the wrong field."""
    problem = await refused(client, queue="my secret password")
    assert "secret" not in str(problem)


async def test_a_moment_or_a_delay_may_be_given_not_both(client: httpx.AsyncClient) -> None:
    problem = await refused(client, scheduled_at=at(hours=1), delay_seconds=5)
    assert "not both" in problem["detail"]


async def test_a_limit_on_a_key_needs_the_key(client: httpx.AsyncClient) -> None:
    problem = await refused(client, concurrency_limit=2)
    assert "needs a concurrency_key" in problem["detail"]


async def test_a_future_moment_makes_a_scheduled_task_and_a_past_one_a_pending_task(client: httpx.AsyncClient) -> None:
    assert (await submit(client, scheduled_at=at(hours=1)))["status"] == "scheduled"
    assert (await submit(client, scheduled_at=at(hours=-1)))["status"] == "pending"
    assert (await submit(client, delay_seconds=60))["status"] == "scheduled"
    assert (await submit(client, delay_seconds=0))["status"] == "pending"


async def test_moments_are_shown_in_utc(client: httpx.AsyncClient) -> None:
    task = await submit(client, scheduled_at="2030-06-01T12:00:00+05:30")
    assert task["scheduled_at"] == "2030-06-01T06:30:00Z"


async def test_a_delay_counts_from_now(client: httpx.AsyncClient) -> None:
    task = await submit(client, delay_seconds=90.5)
    waited = moment(task["scheduled_at"]) - moment(task["created_at"])
    assert timedelta(seconds=90) < waited < timedelta(seconds=91)


async def test_an_expiry_must_come_after_now_and_after_the_start(client: httpx.AsyncClient) -> None:
    for fields in (
        {"expires_at": at(seconds=-1)},
        {"expires_at": at(hours=1), "scheduled_at": at(hours=2)},
        {"expires_at": at(hours=1), "delay_seconds": 7200},
    ):
        problem = await refused(client, **fields)
        assert "expires_at" in problem["detail"]
    assert (await submit(client, expires_at=at(hours=2), scheduled_at=at(hours=1)))["status"] == "scheduled"


async def test_an_unknown_task_type_is_refused_naming_the_known_ones(client: httpx.AsyncClient) -> None:
    problem = await refused(client, task_type="nonsense")
    assert problem["type"].endswith(":unknown-task-type")
    assert "echo" in problem["known"]
    assert "text_processing" in problem["known"]
    assert "echo" in problem["detail"]


async def test_a_wrong_payload_is_refused_field_by_field(client: httpx.AsyncClient) -> None:
    payload = {"text": " ", "operations": ["statistics", "nonsense"], "keywords_limit": "5", "colour": 1}
    problem = await refused(client, task_type="text_processing", payload=payload)
    assert problem["type"].endswith(":payload-invalid")
    found = {".".join(str(part) for part in fault["location"]).removeprefix("body.") for fault in problem["errors"]}
    assert found == {"payload.text", "payload.operations.1", "payload.keywords_limit", "payload.colour"}


async def test_faults_of_a_body_are_located_alike_whoever_found_them(client: httpx.AsyncClient) -> None:
    """The shape, the payload's model and the later checks all point into the body."""
    for fields in (
        {"queue": "a b"},
        {"payload": {"number": "x"}},
        {"task_type": "nonsense"},
        {"parent_id": 12345},
        {"expires_at": at(seconds=-1)},
        {"metadata": {"x": "y" * 20000}},
    ):
        problem = await refused(client, **fields)
        assert [fault["location"][:2] for fault in problem["errors"]] == [["body", next(iter(fields))]], fields


async def test_a_payload_over_its_limit_is_413(client: httpx.AsyncClient) -> None:
    text = "x" * (256 * 1024 - len('{"text":""}'))
    await submit(client, "text_processing", payload={"text": text})
    problem = await refused(client, 413, task_type="text_processing", payload={"text": text + "x"})
    assert problem["limit_bytes"] == 256 * 1024


async def test_payloads_come_back_exactly_as_they_went_in(client: httpx.AsyncClient) -> None:
    payload = {"number": 1, "z": [1, 1.5, -0.0, 1e-7, 2**63 - 1, -(2**63)], "a": {"é": "\u2028 \U0001f600 \"'\\/"}}
    task = await submit(client, payload=payload)
    found = await read(client, task["id"])
    assert found["payload"] == payload
    assert list(found["payload"]) == ["number", "z", "a"]


async def test_an_unfinished_task_holds_its_unique_key(client: httpx.AsyncClient) -> None:
    holder = await submit(client, unique_key="k1")
    problem = await refused(client, 409, unique_key="k1")
    assert problem["type"].endswith(":unique-key-taken")
    assert problem["holder_id"] == holder["id"]
    assert problem["task_status"] == "pending"
    await claim(client)
    assert (await refused(client, 409, unique_key="k1"))["task_status"] == "running"
    await submit(client, unique_key="K1")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_finished_task_gives_its_unique_key_back(client: httpx.AsyncClient, status: str) -> None:
    before = await finished(client, status, unique_key="k1")
    after = await submit(client, unique_key="k1")
    assert after["id"] != before["id"]


async def test_of_many_at_once_with_one_unique_key_one_is_stored(client: httpx.AsyncClient) -> None:
    body = {"task_type": "echo", "unique_key": "only-one"}
    answers = await asyncio.gather(*(client.post("/tasks", json=body) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49
    (first,) = (answer.json()["id"] for answer in answers if answer.status_code == 201)
    assert {answer.json()["holder_id"] for answer in answers if answer.status_code == 409} == {first}
    assert await row_count(client) == 1


async def test_an_unknown_parent_is_refused(client: httpx.AsyncClient) -> None:
    problem = await refused(client, parent_id=77)
    assert "77" in problem["detail"]


async def test_a_refused_parent_does_not_hurt_its_neighbours(client: httpx.AsyncClient) -> None:
    """Requests that arrive together share a transaction."""
    bodies = [
        {"task_type": "echo", "payload": {"number": n}} | ({"parent_id": 999} if n % 2 else {}) for n in range(40)
    ]
    answers = await asyncio.gather(*(client.post("/tasks", json=body) for body in bodies))
    assert [answer.status_code for answer in answers] == [201, 422] * 20
    for body, answer in zip(bodies, answers, strict=True):
        if answer.status_code == 201:
            assert (await read(client, answer.json()["id"]))["payload"] == body["payload"]
    assert await row_count(client) == 20


async def keyed(client: httpx.AsyncClient, key: str = "key-1", **fields: Any) -> httpx.Response:
    return await client.post("/tasks", json={"task_type": "echo", **fields}, headers={"Idempotency-Key": key})


async def test_a_repeated_key_gives_the_first_task_again(client: httpx.AsyncClient) -> None:
    first = await keyed(client, payload={"number": 1, "x": 2})
    assert first.status_code == 201
    again = await client.post(
        "/tasks/",
        content=b'{"payload": {"x": 2, "number": 1},\n "task_type": "echo", "priority": 0}',
        headers=JSON | {"Idempotency-Key": "key-1"},
    )
    assert again.status_code == 200
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()
    assert await row_count(client) == 1


async def test_a_repeated_key_shows_the_task_as_it_is_now(client: httpx.AsyncClient) -> None:
    await keyed(client)
    await claim(client)
    assert (await keyed(client)).json()["status"] == "running"


@pytest.mark.parametrize("fields", [{"payload": {"number": 2}}, {"priority": 1}, {"tags": ["x"]}, {"queue": "q"}])
async def test_a_repeated_key_with_another_body_is_refused(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    await keyed(client)
    problem = assert_problem(await keyed(client, **fields), 422, "idempotency-mismatch")
    assert "key-1" in problem["detail"]
    assert await row_count(client) == 1


async def test_fifty_at_once_with_one_key_make_one_task(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(keyed(client) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert {answer.json()["id"] for answer in answers} == {1}
    assert all(("idempotency-replayed" in answer.headers) == (answer.status_code == 200) for answer in answers)
    assert await row_count(client) == 1


async def test_a_refused_request_does_not_use_its_key_up(client: httpx.AsyncClient) -> None:
    assert_problem(await keyed(client, payload={"number": "x"}), 422)
    assert (await keyed(client)).status_code == 201


async def test_a_repeat_is_answered_although_its_unique_key_is_taken_by_its_own_task(client: httpx.AsyncClient) -> None:
    first = await keyed(client, unique_key="u")
    again = await keyed(client, unique_key="u")
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


async def test_a_repeat_is_answered_after_the_task_expired(client: httpx.AsyncClient) -> None:
    """The client that lost the first answer may come back late; the request is the same and so is the answer."""
    body = {"expires_at": at(hours=1)}
    first = await keyed(client, **body)
    later = datetime.now(UTC) + timedelta(hours=2)
    services_of(client).intake._clock = lambda: later
    again = await keyed(client, **body)
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first.json()["id"]


async def test_a_repeat_is_answered_after_the_parent_was_deleted(client: httpx.AsyncClient) -> None:
    parent = await submit(client)
    first = await keyed(client, parent_id=parent["id"])
    assert (await client.delete(f"/tasks/{parent['id']}")).status_code == 204
    again = await keyed(client, parent_id=parent["id"])
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first.json()["id"]


async def test_keys_of_every_allowed_length_work_and_others_are_refused(client: httpx.AsyncClient) -> None:
    assert (await keyed(client, "k")).status_code == 201
    assert (await keyed(client, "k" * 255)).status_code == 201
    stored = await row_count(client)
    for key in ("", "k" * 256, "a b", "tab\there"):
        problem = assert_problem(await keyed(client, key), 422)
        assert locations(problem) == {"header.Idempotency-Key"}
    assert await row_count(client) == stored
