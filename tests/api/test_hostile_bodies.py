"""Bodies that were made to hurt: each is refused with 4xx, and nothing of it is stored."""

import random
from typing import Any

import httpx
import orjson
import pytest

from app.core.settings import Settings
from tests.api.conftest import JSON, read, row_count, services_of, submit

WRONG_ANYWHERE: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n\t ",
    "a NUL": b"\x00",
    "a BOM": b"\xef\xbb\xbf{}",
    "a BOM before a good body": b'\xef\xbb\xbf{"task_type":"echo"}',
    "UTF-16": '{"task_type":"echo"}'.encode("utf-16"),
    "UTF-32": '{"task_type":"echo"}'.encode("utf-32"),
    "latin-1": '{"task_type":"é"}'.encode("latin-1"),
    "invalid UTF-8": b'{"task_type":"\xff"}',
    "overlong UTF-8": b'{"task_type":"\xc0\x80"}',
    "a surrogate in UTF-8": b'{"task_type":"\xed\xa0\x80"}',
    "cut off": b'{"task_type":"ec',
    "cut off after a key": b'{"task_type"',
    "trailing comma": b'{"task_type":"echo",}',
    "trailing rubbish": b'{"task_type":"echo"}x',
    "two documents": b'{"task_type":"echo"}{"task_type":"echo"}',
    "lines": b'{"task_type":"echo"}\n{"task_type":"echo"}\n',
    "a comment": b'{"task_type":"echo"/**/}',
    "single quotes": b"{'task_type':'echo'}",
    "bare key": b'{task_type:"echo"}',
    "a form": b"task_type=echo&payload=1",
    "XML": b"<task/>",
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a string": b'"echo"',
    "an array": b"[]",
    "an array of a body": b'[{"task_type":"echo"}]',
    "deep arrays": b"[" * 100_000,
    "deep closed arrays": b"[" * 5000 + b"]" * 5000,
    "deep objects": b'{"a":' * 50_000,
    "deep closed objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "many quotes": b'"' * 200_000,
    "a raw control character": b'{"task_type":"ec\x01ho"}',
    "a raw newline": b'{"task_type":"ec\nho"}',
    "a binary": bytes(range(256)) * 40,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    "proto": b'{"__proto__":{"admin":true},"constructor":1}',
    "an unknown field": b'{"nonsense":1}',
    "an empty key": b'{"":1}',
    "a huge key": b'{"' + b"k" * 100_000 + b'":1}',
    "many keys": b"{" + b",".join(b'"k%d":0' % n for n in range(5000)) + b"}",
}

# Each is put at the place of a field's value; `%` is the value.
WRONG_VALUES: dict[str, bytes] = {
    "NaN": b"NaN",
    "minus NaN": b"-NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "1e999": b"1e999",
    "minus 1e999": b"-1e999",
    "2 ** 63": b"9223372036854775808",
    "2 ** 64": b"18446744073709551616",
    "minus 2 ** 63 - 1": b"-9223372036854775809",
    "4,300 digits": b"1" * 4300,
    "5,000 digits": b"9" * 5000,
    "100,000 digits": b"9" * 100_000,
    "a lone high surrogate": b'"\\ud800"',
    "a lone low surrogate": b'"\\udfff"',
    "swapped surrogates": b'"\\udc00\\ud800"',
    "a surrogate in a key": b'{"\\ud800":1}',
    "a NUL": b'"\\u0000"',
    "a NUL in a key": b'{"a\\u0000":1}',
    "a NUL deep inside": b'{"a":[{"b":["\\u0000"]}]}',
    "a key twice": b'{"a":1,"a":1}',
    "an escaped key twice": b'{"a":1,"\\u0061":1}',
    "33 levels": b'{"a":' * 32 + b"1" + b"}" * 32,
    "300 levels": b"[" * 300 + b"]" * 300,
    "leading zero": b"007",
    "plus": b"+1",
    "hexadecimal": b"0x1F",
    "a bare dot": b"1.",
    "undefined": b"undefined",
    "an unknown escape": b'"\\x41"',
    "invalid UTF-8": b'"\xff\xfe"',
}

PLACES: dict[str, bytes] = {
    "task_type": b'{"task_type":%s}',
    "payload": b'{"task_type":"echo","payload":%s}',
    "in the payload": b'{"task_type":"echo","payload":{"number":1,"x":%s}}',
    "in a list in the payload": b'{"task_type":"echo","payload":{"x":[1,%s]}}',
    "priority": b'{"task_type":"echo","priority":%s}',
    "delay_seconds": b'{"task_type":"echo","delay_seconds":%s}',
    "max_attempts": b'{"task_type":"echo","max_attempts":%s}',
    "parent_id": b'{"task_type":"echo","parent_id":%s}',
    "tags": b'{"task_type":"echo","tags":[%s]}',
    "metadata": b'{"task_type":"echo","metadata":{"x":%s}}',
    "unique_key": b'{"task_type":"echo","unique_key":%s}',
    "an unknown field": b'{"task_type":"echo","x":%s}',
}
PATCH_PLACES = {
    "priority": b'{"priority":%s}',
    "metadata": b'{"metadata":{"x":%s}}',
    "tags": b'{"tags":[%s]}',
    "scheduled_at": b'{"scheduled_at":%s}',
    "max_attempts": b'{"max_attempts":%s}',
}


def corpus() -> list[tuple[str, str, str, bytes]]:
    """(what, method, path, body) of every hostile request."""
    requests = []
    for name, body in WRONG_ANYWHERE.items():
        for method, path in (("POST", "/tasks"), ("POST", "/tasks/bulk"), ("PATCH", "/tasks/1")):
            requests.append((name, method, path, body))
    for name, value in WRONG_VALUES.items():
        for place, template in PLACES.items():
            body = template.replace(b"%s", value)
            requests.append((f"{name} as {place}", "POST", "/tasks", body))
            requests.append((f"{name} as {place}", "POST", "/tasks/bulk", b'{"tasks":[' + body + b"]}"))
        for place, template in PATCH_PLACES.items():
            requests.append((f"{name} as {place}", "PATCH", "/tasks/1", template.replace(b"%s", value)))
    return requests


async def test_every_hostile_body_is_refused_and_nothing_of_it_is_stored(client: httpx.AsyncClient) -> None:
    task = await submit(client)
    let_in = []
    requests = corpus()
    assert len({body for *_, body in requests}) > 60
    for what, method, path, body in requests:
        answer = await client.request(method, path, content=body, headers=JSON)
        sound = 400 <= answer.status_code < 500 and answer.headers["content-type"] == "application/problem+json"
        if not sound:
            let_in.append((what, method, path, answer.status_code, answer.text[:200]))
    assert let_in == []
    assert await row_count(client) == 1
    assert await read(client, 1) == task


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"task_type":"echo","payload":{"x":NaN}}', 400),
        (b'{"task_type":"echo","payload":{"a":1,"a":2}}', 400),
        (b'{"task_type":"echo","payload":{"x":9223372036854775808}}', 400),
        (b'{"task_type":"echo","payload":{"x":"\\u0000"}}', 400),
        (b'{"task_type":"echo","payload":{"x":"\\ud800"}}', 400),
        (b'{"task_type":"echo"', 400),
        (b"", 400),
        (b"[]", 422),
        (b'{"task_type":"echo","priority":true}', 422),
        (b'{"task_type":"echo","priority":"5"}', 422),
        (b'{"task_type":"echo","priority":1.0}', 422),
        (b'{"task_type":"echo","nonsense":1}', 422),
    ],
)
async def test_what_is_no_sound_json_is_400_and_what_does_not_fit_is_422(
    client: httpx.AsyncClient, body: bytes, status: int
) -> None:
    answer = await client.post("/tasks", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    kind = "malformed-json" if status == 400 else "invalid-request"
    assert answer.json()["type"].endswith(kind)


def nested(levels: int) -> bytes:
    inner = levels - 2
    return b'{"task_type":"echo","payload":{"x":' + b"[" * inner + b"]" * inner + b"}}"


async def test_the_depth_is_exact(client: httpx.AsyncClient) -> None:
    assert (await client.post("/tasks", content=nested(32), headers=JSON)).status_code == 201
    assert (await client.post("/tasks", content=nested(33), headers=JSON)).status_code == 400


async def test_the_deepest_body_that_can_be_allowed_is_stored_and_read(settings: Settings, serve: Any) -> None:
    client = await serve(settings.model_copy(update={"max_json_depth": 200}))
    answer = await client.post("/tasks", content=nested(200), headers=JSON)
    assert answer.status_code == 201
    assert (await client.get("/tasks/1")).content == (await client.get("/tasks/1")).content
    assert (await read(client, 1))["payload"] == answer.json()["payload"]
    assert (await client.post("/tasks", content=nested(201), headers=JSON)).status_code == 400


async def test_a_long_body_is_parsed_beside_the_loop_with_the_same_rules(client: httpx.AsyncClient) -> None:
    for rubbish, status in ((b"NaN", 400), (b'"\\u0000"', 400), (b"1", 201)):
        body = b'{"task_type":"echo","payload":{"x":' + rubbish + b"}" + b" " * 300_000 + b"}"
        assert (await client.post("/tasks", content=body, headers=JSON)).status_code == status
    assert await row_count(client) == 1


SEEDS = [
    b'{"task_type":"echo","payload":{"number":1},"priority":"high","tags":["a","b"],"metadata":{"k":[1,2.5,null]}}',
    b'{"task_type":"text_processing","payload":{"text":"\\u00e9 x","operations":["statistics"]},"delay_seconds":0.5}',
    b'{"tasks":[{"task_type":"echo"},{"task_type":"echo","payload":{"number":2},"max_attempts":3}]}',
    b'{"priority":5,"tags":["x"],"metadata":{"a":{"b":"c"}},"max_attempts":7,"scheduled_at":null}',
]
ROUTES = [("POST", "/tasks"), ("POST", "/tasks"), ("POST", "/tasks/bulk"), ("PATCH", "/tasks/1")]
"""Where each of the seeds is good."""
PIECES = [
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"null",
        b"true",
        b"NaN",
        b"-",
        b"1e999",
    ),
    *(b"\x00", b"\xff", b"\xc3", b"9" * 25, b"0", b".", b"e", b' "a":1,', b"[[[[", b"  ", b"\n", b'"payload":{}'),
    *(b"1e308", b"2030-01-01T00:00:00Z", b'"9999-12-31T23:59:59-23:59"', b'"scheduled_at":', b'"timeout_seconds":'),
]


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """A good body with one to three things wrong with it."""
    body = bytearray(seed)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.randrange(len(body) + 1)
        match chance.randrange(5):
            case 0:
                body[place:place] = chance.choice(PIECES)
            case 1:
                del body[place : place + chance.randint(1, 12)]
            case 2:
                body[place : place + 1] = bytes([chance.randrange(256)])
            case 3:
                start = chance.randrange(len(body) + 1)
                body[place:place] = body[start : start + chance.randint(1, 30)]
            case 4:
                del body[place:]
    return bytes(body)


FIELDS = [
    *("task_type", "payload", "queue", "priority", "scheduled_at", "delay_seconds", "expires_at", "max_attempts"),
    *("timeout_seconds", "unique_key", "tags", "metadata", "parent_id", "nonsense"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 50, 2**31, 2**63 - 1, -(2**63), 0.5, -0.0, 1e308, -1e308, 5e-324, 3650 * 86400),
    *("", "a", "echo", "text_processing", "high", "x" * 65, "x" * 255, "é", "\U0001f600", "a|b", "%", "5", " "),
    *("2000-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "2036-11-01T00:00:00-23:59", "9999-12-31T23:59:59.999999-23:59"),
    *("0001-01-01T00:00:00+23:59", "2030-02-29T00:00:00Z", "2030-01-01T00:00:60Z", "2030-01-01T24:00:00Z", "P1D"),
    *([], ["a"], ["a", "a"], [[]], ["|"], {}, {"number": 2**62}, {"number": "7"}, {"number": 1e300}, {"text": "\x7f"}),
]


def refilled(seed: bytes, chance: random.Random) -> bytes:
    """A good body with one to three fields that have a surprising value."""
    body = orjson.loads(seed)
    task = chance.choice(body["tasks"]) if "tasks" in body else body
    for _ in range(chance.choice([1, 1, 2, 3])):
        task[chance.choice(FIELDS)] = chance.choice(VALUES)
    return orjson.dumps(body)


async def test_mutated_bodies_are_taken_or_refused_but_never_a_failure(client: httpx.AsyncClient) -> None:
    await submit(client)
    chance = random.Random(20260102)
    taken = 1
    for _ in range(5000):
        seed = chance.randrange(len(SEEDS))
        body = chance.choice([mutated, refilled])(SEEDS[seed], chance)
        method, path = chance.choice([*ROUTES, ROUTES[seed]])
        answer = await client.request(method, path, content=body, headers=JSON)
        assert answer.status_code < 500, (method, path, body, answer.text)
        if answer.status_code == 201:
            made = [answer.json()["id"]] if path == "/tasks" else answer.json()["ids"]
            taken += len(made)
            for task_id in made:
                orjson.loads((await client.get(f"/tasks/{task_id}")).content)
        else:
            assert answer.status_code in (200, 400, 409, 413, 422), (method, path, body)
    assert taken > 60, "the mutations are too wild to reach the later checks"
    assert await row_count(client) == taken


async def test_the_service_works_as_before_after_all_of_that(client: httpx.AsyncClient) -> None:
    for _, method, path, body in corpus()[::7]:
        await client.request(method, path, content=body, headers=JSON)
    await submit(client, payload={"number": 1})
    assert (await client.get("/health")).json()["status"] == "healthy"
    assert not services_of(client).watcher.closed


@pytest.mark.parametrize("path", ["/tasks", "/tasks/bulk"])
async def test_a_refusal_is_no_longer_than_what_it_refuses(client: httpx.AsyncClient, path: str) -> None:
    """Every fault costs memory, time and an entry in the answer, so their number must have an end."""
    body = b"{" + b",".join(b'"%d":0' % n for n in range(30_000)) + b"}"
    if path == "/tasks/bulk":
        body = b'{"tasks":[' + b"{}," * 20_000 + b"{}]}"
    answer = await client.post(path, content=body, headers=JSON)
    assert answer.status_code == 422
    assert len(answer.content) <= len(body)
