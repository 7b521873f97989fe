"""Signing in and out over HTTP; and what a page of another origin can do with somebody's cookie, or by a name that leads to
loopback: nothing."""

import re
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from tests.security.conftest import House, MakeHouse
from tests.security.test_authorisation import filled, operations

OWN = "http://test"
PROOF = {"X-Same-Origin": "1", "Origin": OWN}
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://other.test"},
    {"Sec-Fetch-Site": "same-site", "Origin": f"{OWN}:3000", "X-Same-Origin": "1"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "X-Same-Origin": "1"},
    {"Sec-Fetch-Site": "cross-site", "Origin": OWN, "X-Same-Origin": "1"},
    {"Origin": "https://evil.example", "X-Same-Origin": "1"},
    {"Origin": f"{OWN}:3000", "X-Same-Origin": "1"},
    {"Origin": f"{OWN}.evil.example", "X-Same-Origin": "1"},
    {"Origin": f"http://evil.example/{OWN}", "X-Same-Origin": "1"},
    {"Origin": "null", "X-Same-Origin": "1"},
    {"Origin": "", "X-Same-Origin": "1"},
    {"Origin": OWN},
    {"Sec-Fetch-Site": "same-origin", "Origin": OWN},
    {"Sec-Fetch-Site": "none", "X-Same-Origin": "1"},
    {"Sec-Fetch-Site": "SAME-ORIGIN", "X-Same-Origin": "1"},
    {"X-Same-Origin": "1"},
    {"Referer": f"{OWN}/"},
    {},
]
"""What browsers say of pages of others, and what proves too little: no origin, or no mark."""
SENT: list[dict[str, Any]] = [
    {"json": {}},
    {"data": {"all": "true"}},
    {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
    {"files": {"file": ("a", b"a")}},
    {},
]


async def signed_in(house: House, key: str = "admin", **headers: str) -> httpx.Response:
    return await house.ask("POST", "/session", json={"key": house.keys[key]}, headers=headers)


async def test_who_signs_in_gets_a_cookie_that_stands_for_the_key(house: House) -> None:
    assert (await house.ask("GET", "/session")).json() == {"needed": True, "key": None, "ends_at": None}
    answer = await signed_in(house, "north-manage")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"task-service=tk\w+\.[\w-]{43}; Max-Age=1800; Path=/; HttpOnly; SameSite=Strict", cookie)
    assert house.keys["north-manage"] not in cookie
    told = answer.json()
    assert (told["key"]["name"], told["key"]["tenant"]) == ("north-manage", "north")
    assert told["key"]["scopes"] == ["manage"]
    assert (await house.ask("GET", "/session")).json() == told
    task = await house.submitted("north")
    assert (await house.ask("GET", f"/tasks/{task}")).status_code == 403, "the scopes of the key, and no more"
    assert (await house.ask("POST", f"/tasks/{task}/cancel", headers=PROOF)).status_code == 200
    theirs = await house.submitted("south")
    assert (await house.ask("POST", f"/tasks/{theirs}/cancel", headers=PROOF)).status_code == 404
    out = await house.ask("DELETE", "/session", headers=PROOF)
    assert out.status_code == 204
    assert "task-service=; Max-Age=0; Path=/; HttpOnly" in out.headers["set-cookie"]
    assert (await house.ask("POST", f"/tasks/{task}/cancel", headers=PROOF)).status_code == 401


@pytest.mark.parametrize("key", ["wrong", "unknown", "revoked", "expired"])
async def test_a_key_that_opens_nothing_signs_nobody_in(house: House, key: str) -> None:
    answer = await signed_in(house, key)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The key is unknown, expired or revoked."
    assert "set-cookie" not in answer.headers
    assert house.keys[key] not in answer.text


async def test_a_revoked_key_ends_its_sessions(house: House) -> None:
    await signed_in(house, "read")
    assert (await house.ask("GET", "/tasks")).status_code == 200
    key = house.keys["read"].split(".")[0]
    assert (await house.ask("DELETE", f"/api-keys/{key}", "admin")).status_code == 204
    assert (await house.ask("GET", "/tasks")).status_code == 401
    assert (await house.ask("GET", "/session")).json()["key"] is None


async def test_a_token_gets_a_successor_that_is_handed_out_once(house: House, monkeypatch: Any) -> None:
    monkeypatch.setattr("app.core.sessions.TOKEN_AGE", timedelta(0))
    before = (await signed_in(house, "read")).headers["set-cookie"]
    after = (await house.ask("GET", "/tasks")).headers["set-cookie"]
    assert before.split(";", 1)[1] == after.split(";", 1)[1]
    assert before.split(";")[0] != after.split(";")[0]
    old = await house.ask("GET", "/tasks", headers={"Cookie": before.split(";")[0]})
    assert (old.status_code, old.headers.get("set-cookie")) == (200, None), "good a little longer, without another"


async def test_over_tls_the_cookie_is_for_this_very_host_alone(locked: MakeHouse) -> None:
    house = await locked(public_urls=("https://tasks.example",))
    cookie = (await signed_in(house)).headers["set-cookie"]
    assert re.fullmatch(r"__Host-task-service=[\w.-]+; Max-Age=1800; Path=/; HttpOnly; SameSite=Strict; Secure", cookie)
    token = cookie.partition("=")[2].partition(";")[0]
    house.client.cookies.clear()
    for name, expected in (("__Host-task-service", 200), ("task-service", 401)):
        answer = await house.ask("GET", "/tasks", headers={"Cookie": f"{name}={token}"})
        assert answer.status_code == expected, name
    proof = {"Cookie": f"__Host-task-service={token}", "X-Same-Origin": "1"}
    for origin, expected in (("https://tasks.example", 404), ("http://tasks.example", 403), ("https://test", 404)):
        answer = await house.ask("POST", "/tasks/1/cancel", headers=proof | {"Origin": origin})
        assert answer.status_code == expected, origin


@pytest.mark.parametrize("cookie", ["", "task-service", "task-service=", "task-service=x", "a=b; c", ";;;", "=" * 5000])
async def test_what_is_no_cookie_of_ours_opens_nothing(house: House, cookie: str) -> None:
    assert (await house.ask("GET", "/tasks", headers={"Cookie": cookie})).status_code == 401


async def test_no_unsafe_call_goes_by_the_cookie_from_elsewhere(house: House) -> None:
    """Each operation that changes something, from each kind of page, with each kind of body a page can send."""
    await signed_in(house)
    tried = 0
    for method, path, _ in await operations(house):
        if method == "GET" or path == "/session":
            continue
        for said in FOREIGN:
            for parts in SENT:
                sent = parts | {"headers": parts.get("headers", {}) | said}
                answer = await house.ask(method, filled(path), **sent)
                assert answer.status_code == 403, (method, path, said, parts)
                assert answer.json()["type"].endswith("foreign-origin")
                tried += 1
        for said in (PROOF, {"X-Same-Origin": "1", "Sec-Fetch-Site": "same-origin"}):
            answer = await house.ask(method, filled(path), json={}, headers=said)
            assert answer.status_code not in (401, 403), (method, path, said, answer.text)
    assert tried >= 1500
    assert (await house.ask("GET", "/session")).json()["key"], "nor is anybody signed out"


@pytest.mark.parametrize("said", FOREIGN[:12])
async def test_nobody_is_signed_in_or_out_by_another_page(house: House, said: dict[str, str]) -> None:
    """Who is signed in with a stranger's key hands the stranger what they submit."""
    assert (await signed_in(house, **said)).status_code == 403
    await signed_in(house)
    assert (await house.ask("DELETE", "/session", headers=said)).status_code == 403
    assert (await house.ask("GET", "/session")).json()["key"]


async def test_a_key_in_the_header_needs_no_proof(house: House) -> None:
    """No page of another origin can send it."""
    task = await house.submitted("all")
    answer = await house.ask("POST", f"/tasks/{task}/cancel", "manage", headers={"Origin": "https://app.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_guessing_at_the_entrance_is_counted(locked: MakeHouse) -> None:
    house = await locked(address_requests_per_second=5)
    answers = [(await signed_in(house, "wrong")).status_code for _ in range(20)]
    assert set(answers) == {401, 429}
    assert answers.count(401) <= 11


# Without any key, on loopback

NAMES = [
    "localhost",
    "localhost:8000",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.8.9.1",
    "[::1]:8000",
    "LocalHost",
    "a.localhost",
]
STRANGE = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "0.0.0.0",
]
STRANGER = [
    "",
    "[::2]",
    "[",
    "localhost@evil.example",
    "evil.example#localhost",
    "xlocalhost",
    "2130706433",
    "a/localhost",
]


@pytest.fixture
async def open_house(serve: Any, settings: Settings) -> httpx.AsyncClient:
    """An API without keys that was reached on loopback."""
    client: httpx.AsyncClient = await serve(settings.model_copy(update={"public_urls": ("https://tasks.example",)}))
    client.base_url = httpx.URL("http://127.0.0.1:8000")
    return client


@pytest.mark.parametrize("host", [*NAMES, "tasks.example"])
async def test_loopback_answers_to_its_names(open_house: httpx.AsyncClient, host: str) -> None:
    for _ in range(2):
        assert (await open_house.get("/tasks", headers={"Host": host})).status_code == 200
    assert (await open_house.post("/tasks", json={"task_type": "echo"}, headers={"Host": host})).status_code == 201


@pytest.mark.parametrize("host", STRANGE + STRANGER)
async def test_a_name_that_was_made_to_lead_to_loopback_leads_nowhere(open_house: httpx.AsyncClient, host: str) -> None:
    """DNS rebinding: for the browser the page and the service are of one origin then."""
    for method, path in (("GET", "/tasks"), ("GET", "/"), ("POST", "/tasks"), ("DELETE", "/tasks/1")):
        said = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        answer = await open_house.request(method, path, headers=said)
        assert answer.status_code == 403, method
        assert answer.json()["type"].endswith("foreign-origin")


async def test_where_others_reach_it_too_any_name_is_right(open_house: httpx.AsyncClient) -> None:
    answer = await open_house.get("http://10.1.2.3:8000/tasks", headers={"Host": "tasks.internal"})
    assert answer.status_code == 200


async def test_without_keys_a_foreign_page_changes_nothing(open_house: httpx.AsyncClient) -> None:
    """Each operation that changes something; those without a body were open to forms before."""
    document = (await open_house.get("/openapi.json")).json()
    tried = 0
    for path, verbs in document["paths"].items():
        for method in (verb.upper() for verb in verbs if verb != "get"):
            for said in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}):
                for parts in SENT:
                    sent = parts | {"headers": parts.get("headers", {}) | said}
                    answer = await open_house.request(method, filled(path), **sent)
                    assert answer.status_code == 403, (method, path, said)
                    tried += 1
    assert tried >= 300
    assert (await open_house.get("/tasks", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "https://tasks.example"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_without_keys_programs_and_our_own_page_may_do_all(
    open_house: httpx.AsyncClient, said: dict[str, str]
) -> None:
    answer = await open_house.post("/tasks", json={"task_type": "echo"}, headers=said)
    assert answer.status_code == 201
