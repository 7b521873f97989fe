"""What is in a body: no field of ours can be set, and whatever the bytes are, the answer is 2xx or 4xx, soon."""

import os
import random
import resource
import time
from typing import Any

import httpx
import orjson
import pytest

from app.core.file import StoredFile
from app.core.keys import ApiKey
from app.core.task import Task
from app.core.values import field_names
from tests.api.conftest import JSON
from tests.api.test_hostile_bodies import WRONG_ANYWHERE, WRONG_VALUES, mutated, refilled
from tests.security.conftest import House

SEEDS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/tasks"): {"task_type": "echo", "payload": {"number": 1}},
    ("POST", "/tasks/bulk"): {"tasks": [{"task_type": "echo", "payload": {"number": 1}}]},
    ("PATCH", "/tasks/1"): {"priority": 5},
    ("POST", "/dead-letters/requeue"): {"ids": [1]},
    ("POST", "/dead-letters/resolve"): {"ids": [1], "note": "done"},
    ("POST", "/dead-letters/purge"): {"ids": [1]},
    ("POST", "/breakers/echo/trip"): {"reason": "broken", "seconds": 0.001},
    ("PATCH", "/queues/echo"): {"paused": False},
    ("POST", "/api-keys"): {"name": "ci", "scopes": ["read"]},
    ("POST", "/session"): {"key": "tk0123456789ab.unknown"},
    ("POST", "/alerts/silences"): {"rule": "queue-old", "seconds": 60, "note": "planned"},
    ("POST", "/webhooks"): {"url": "https://hooks.example.com/", "secrets": ["crm"]},
    ("PATCH", "/webhooks/wh0"): {"enabled": True},
}
OWNED = sorted(
    {*field_names(Task), *field_names(ApiKey), *field_names(StoredFile)} | {"request_hash", "admin", "role", "key"}
)
"""Every column there is: what no body may set beyond the fields it has."""
MUTATIONS = 20_000 if os.environ.get("CHAOS") == "long" else 400
"""Of each route."""
SLOWEST_SECONDS = 1.0


async def test_every_body_route_is_tried(house: House) -> None:
    document = (await house.ask("GET", "/openapi.json", "read")).json()
    with_json = {
        (verb.upper(), path.replace("{task_id}", "1").replace("{name}", "echo").replace("{webhook_id}", "wh0"))
        for path, verbs in document["paths"].items()
        for verb, one in verbs.items()
        if "application/json" in one.get("requestBody", {}).get("content", {})
    }
    assert with_json == set(SEEDS)


@pytest.mark.parametrize(("method", "path"), SEEDS)
async def test_no_field_of_ours_can_be_set(house: House, method: str, path: str) -> None:
    """Mass assignment: each field that a row has and the body has not is refused, whatever it holds."""
    await house.submitted("admin")
    seed = SEEDS[method, path]
    schema = await fields_of(house, method, path)
    tried = 0
    for name in OWNED:
        if name in schema:
            continue
        for value in (None, 1, "north", "completed", [], {}):
            if path == "/tasks/bulk":
                body: dict[str, Any] = {"tasks": [seed["tasks"][0] | {name: value}]}
            else:
                body = seed | {name: value}
            answer = await house.ask(method, path, "admin", json=body)
            assert answer.status_code == 422, (name, value, answer.text)
            tried += 1
    assert tried > 100
    assert (await house.ask("GET", "/tasks/1", "admin")).json()["status"] == "pending"


async def fields_of(house: House, method: str, path: str) -> set[str]:
    """The fields that the route takes, by the document."""
    document = (await house.ask("GET", "/openapi.json", "read")).json()
    shown = path.replace("/1", "/{task_id}").replace("/echo", "/{name}").replace("/wh0", "/{webhook_id}")
    body = document["paths"][shown][method.lower()]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schemas = document["components"]["schemas"]
    schema = schemas["Submission" if path == "/tasks/bulk" else body.rsplit("/", 1)[1]]
    return set(schema["properties"]) | ({"task_type", "payload"} if "/tasks" in path and method == "POST" else set())


def hostile(seed: dict[str, Any]) -> list[bytes]:
    """The fixed corpus: whole bodies, and wrong values at the place of each field."""
    bodies = list(WRONG_ANYWHERE.values())
    for name in seed:
        others = orjson.dumps({key: value for key, value in seed.items() if key != name})[1:-1]
        start = b"{" + (others + b"," if others else b"") + orjson.dumps(name) + b":"
        bodies += [start + value + b"}" for value in WRONG_VALUES.values()]
    return bodies


async def answered_in(house: House, method: str, path: str, body: bytes) -> float:
    """Seconds of processor time until it was taken or refused."""
    began = time.process_time()
    answer = await house.ask(method, path, "admin", content=body, headers=JSON)
    seconds = time.process_time() - began
    assert 200 <= answer.status_code < 300 or 400 <= answer.status_code < 500, (body[:200], answer.text)
    assert len(answer.content) < 64 * 1024
    return seconds


@pytest.mark.parametrize(("method", "path"), SEEDS)
async def test_hostile_and_mutated_bodies_are_taken_or_refused_soon(house: House, method: str, path: str) -> None:
    await house.submitted("admin")
    seed = SEEDS[method, path]
    chance = random.Random(f"{method} {path}")
    raw = orjson.dumps(seed)
    bodies = hostile(seed)
    assert len(bodies) >= 60
    for number in range(MUTATIONS):
        bodies.append(refilled(raw, chance) if number % 4 == 0 else mutated(raw, chance))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for body in bodies:
        # What is slow because of its bytes is slow each time; what a garbage collection or a neighbour has slowed is not.
        seconds = [await answered_in(house, method, path, body)]
        while seconds[-1] >= SLOWEST_SECONDS and len(seconds) < 4:
            seconds.append(await answered_in(house, method, path, body))
        assert min(seconds) < SLOWEST_SECONDS, (body[:200], seconds)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"
    assert (await house.ask("GET", "/health")).json()["status"] == "healthy"


async def test_strings_made_for_sql_are_only_strings(house: House) -> None:
    """In each filter of each list: refused as no name, or found nowhere; never a failure, never everything."""
    await house.submitted("admin")
    strings = [
        "'",
        '"',
        "' OR 1=1 --",
        "1; DROP TABLE tasks",
        "%",
        "_",
        "\\",
        "a|b",
        "echo' UNION SELECT",
        "$1",
        ":now",
        "{0}",
    ]
    strings += [
        "%27",
        "0x27",
        "''",
        "`",
        ")",
        "*",
        "echo\x00",
        "ECHO",
        "ec_o",
        "ec%",
        "|",
        "||",
        "NULL",
        "true",
        "-1",
        "1e9",
    ]
    tried = 0
    for path, names in (
        ("/tasks", ("status", "task_type", "queue", "tag", "parent_id", "cursor", "include", "limit")),
        ("/dead-letters", ("task_type", "queue", "failure_reason", "fingerprint", "cursor", "limit")),
        ("/dead-letters/groups", ("task_type", "queue", "failure_reason", "limit")),
    ):
        for name in names:
            for string in strings:
                answer = await house.ask("GET", path, "read", params={name: string})
                assert answer.status_code == 422 or answer.json()["items"] == [], (path, name, string, answer.text)
                tried += 1
    assert tried > 400
    assert len((await house.ask("GET", "/tasks", "read")).json()["items"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/tasks/bulk", b'{"tasks":[' + b"1," * 2_000_000 + b"1]}", 422, "At most 10000 tasks"),
        ("/tasks/bulk", b'{"tasks":[' + b"{}," * 2_000_000 + b"{}]}", 400, "lists and objects"),
        ("/tasks", b"{" + b",".join(b'"%x":0' % number for number in range(100_000)) + b"}", 422, "100,001 faults"),
        ("/session", b"{" + b" " * 5000 + b"}", 413, "4096 bytes"),
    ],
)
async def test_a_million_faults_are_counted_and_not_told(
    client: httpx.AsyncClient, path: str, body: bytes, status: int, says: str
) -> None:
    """Each fault as a sentence takes a kilobyte: 16 MB of them took ten gigabytes and a minute."""
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert len(answer.content) < 1000
