"""Every route of the OpenAPI document, with every kind of key: who may, may; nobody else learns anything."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from app.api.access import access_of, needs, public
from app.api.routes import DirectRoute
from app.core.errors import StoreUnavailable
from app.core.keys import Scope
from app.core.lifecycle import Completed, Errored
from app.core.task import JsonText
from tests.api.conftest import claim, services_of, settle
from tests.security.conftest import SCOPES, House, MakeHouse

PUBLIC = {"/", "/health", "/health/live", "/health/ready", "/session"}
WHOLE_SERVICE = {
    *("/workers", "/diagnosis", "/autoscale", "/metrics", "/breakers", "/breakers/{name}/trip"),
    *("/alerts", "/alerts/history", "/alerts/silences", "/alerts/silences/{silence_id}", "/alerts/test"),
    *("/breakers/{name}/reset", "/queues/{name}", "/queues/{name}/pause", "/queues/{name}/resume"),
}
USELESS = ("wrong", "unknown", "revoked", "expired")
SCOPE_OF = {
    ("POST", "/tasks"): Scope.SUBMIT,
    ("POST", "/tasks/bulk"): Scope.SUBMIT,
    ("POST", "/files"): Scope.SUBMIT,
    ("GET", "/audit"): Scope.MANAGE,
    ("GET", "/api-keys"): Scope.ADMIN,
    ("POST", "/api-keys"): Scope.ADMIN,
    ("DELETE", "/api-keys/{key_id}"): Scope.ADMIN,
}
"""What is neither looking (read) nor changing (manage)."""
MISSING_FILE = 32 * "0"


def scope_of(method: str, path: str) -> Scope:
    """What the rules say, apart from what the routes say."""
    return SCOPE_OF.get((method, path), Scope.READ if method == "GET" else Scope.MANAGE)


async def operations(house: House) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of everything that the OpenAPI document lists."""
    document = (await house.ask("GET", "/openapi.json", "read")).json()
    return [(verb.upper(), path, one) for path, verbs in document["paths"].items() for verb, one in verbs.items()]


def let_streams_end(client: httpx.AsyncClient) -> None:
    """The overview's would never end, and is then one without an event."""
    client.app.state.snapshots.let_go()  # type: ignore[attr-defined]


def filled(path: str, task: object = 999_999, file: str = MISSING_FILE) -> str:
    values = {"{task_id}": str(task), "{file_id}": file, "{key_id}": "tk0", "{name}": "nobody", "{task_type}": "echo"}
    values["{webhook_id}"] = "wh0"
    values |= {"{silence_id}": "999999"}
    for part, value in values.items():
        path = path.replace(part, value)
    assert "{" not in path
    return path


async def test_every_route_says_who_may_call_it(house: House) -> None:
    """By the route table itself: what is not in it cannot be called."""
    app: Any = house.client.app  # type: ignore[attr-defined]
    others = []
    for route in app.routes:
        if isinstance(route, DirectRoute):
            assert (route.access.scope is None) == (route.path in PUBLIC or _is_asset(route.path)), route.path
            assert route.access.whole == (route.path in WHOLE_SERVICE), route.path
        else:
            assert isinstance(route, Route | Mount)
            others.append(route.path)
    assert sorted(others) == ["/docs", "/docs/assets", "/openapi.json"], "what is no DirectRoute checks no scopes"


def _is_asset(path: str) -> bool:
    """A file of the dashboard, which holds nothing of anybody's."""
    return path.startswith("/dashboard/")


def test_a_route_without_a_scope_cannot_be_made() -> None:
    async def endpoint() -> None: ...

    with pytest.raises(TypeError, match="needs @needs"):
        DirectRoute("/x", endpoint)
    assert access_of(needs(Scope.READ)(endpoint)).scope is Scope.READ
    assert isinstance(DirectRoute("/x", public(endpoint)), APIRoute)


async def test_every_operation_with_every_key(house: House) -> None:
    let_streams_end(house.client)
    tried = 0
    for method, path, described in await operations(house):
        url = filled(path)
        if path in PUBLIC:
            expected = {"GET": 200, "POST": 415, "DELETE": 204}[method]
            assert (await house.ask(method, url)).status_code == expected
            assert (await house.ask(method, url, "wrong")).status_code == expected
            assert "security" not in described
            continue
        wanted = scope_of(method, path)
        assert described["security"] == [{"key": [wanted.value]}, {}], (method, path)
        for key in (None, *USELESS):
            answer = await house.ask(method, url, key)
            assert answer.status_code == 401, (method, path, key)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
        for scope in SCOPES:
            for tenant in ("", "north-"):
                answer = await house.ask(method, url, f"{tenant}{scope}", json={})
                may = scope in (wanted, Scope.ADMIN) and not (tenant and path in WHOLE_SERVICE)
                assert (answer.status_code != 403) == may, (method, path, tenant, scope, answer.text)
                assert answer.status_code not in (401, 500), (method, path)
                tried += 1
    assert tried >= 300


UNLISTED = (
    "/dashboard",
    "/dashboard/",
    "/dashboard/../tasks",
    "/nothing",
    "/xhealth",
    "/nothing/health",
    "/tasks/health",
    "/tasks/ready",
    "/health/",
    "/docs",
    "/docs/",
)
TRICKS = (
    "//health",
    "/health/../tasks",
    "/health/%2e%2e/tasks",
    "/tasks%2f",
    "/%74asks",
    "/health;/tasks",
    "/health%00",
)
MORE_TRICKS = (
    "/HEALTH",
    "/health/live/x",
    "/openapi.json",
    "/docs/assets/swagger-ui.css",
    "/tasks/",
    "/tasks//",
    "/%2fhealth",
)


@pytest.mark.parametrize("path", UNLISTED + TRICKS + MORE_TRICKS)
async def test_no_path_goes_round_the_door(house: House, path: str) -> None:
    """Not even to find out what there is: only a few exact paths are open."""
    expected = 200 if path == "/health/" else 401
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"):
        answer = await house.client.request(method, httpx.URL(f"http://test{path}"))
        assert answer.status_code == (expected if method in ("GET", "HEAD") else 405 if expected == 200 else 401)


@pytest.mark.parametrize("host", ["a/../x?", "x#", "evil.example/health?", "localhost", "[::1]", "a@b", "/health"])
async def test_a_host_header_opens_nothing(house: House, host: str) -> None:
    answer = await house.client.get("/tasks", headers={"Host": host})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "shown",
    [
        *("", " ", "Bearer", "Bearer ", "Basic {key}", "{key}", "Bearer{key}", "Bearer\t{key}", "Bearer {key}x"),
        *(
            "Bearer x{key}",
            "Bearer {key} {key}",
            "Bearer {key},{key}",
            "Bearer {id}",
            "Bearer {id}.",
            "Bearer .{secret}",
        ),
        *(
            "Bearer {ID}.{secret}",
            "Bearer {id}.{SECRET}",
            "Bearer {id}\u00e9.{secret}",
            "Bearer null",
            "Bearer undefined",
        ),
        *("Token {key}", 'Bearer "{key}"', "Bearer {id}:{secret}", "Bearer %00{key}", f"Bearer {'x' * 5000}"),
    ],
)
async def test_a_key_must_be_shown_as_it_is(house: House, shown: str) -> None:
    key = house.keys["admin"]
    id_, secret = key.split(".")
    text = shown.format(key=key, id=id_, secret=secret, ID=id_.upper(), SECRET=secret.swapcase())
    answer = await house.client.get("/tasks", headers=[(b"authorization", text.encode("latin-1"))])
    assert answer.status_code == 401


async def test_the_scheme_may_be_written_in_any_case_and_the_query_opens_nothing(house: House) -> None:
    key = house.keys["read"]
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await house.client.get("/tasks", headers={"Authorization": f"{scheme} {key}"})
        assert answer.status_code == 200
    for query in (f"api_key={key}", f"token={key}", f"access_token={key}"):
        assert (await house.client.get(f"/tasks?{query}")).status_code == 401
    assert (await house.client.get("/tasks", headers={"Cookie": f"key={key}", "X-Api-Key": key})).status_code == 401


def bare(answer: httpx.Response, asked: object) -> tuple[int, dict[str, str], bytes]:
    """An answer with the id that was asked for taken out: nothing else may differ."""
    content = answer.content.replace(str(asked).encode(), b"*")
    return answer.status_code, dict(answer.headers) | {"content-length": "*"}, content


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_what_is_anothers_answers_byte_for_byte_as_if_it_were_missing(locked: MakeHouse) -> None:
    """With the id in the path, in every operation that has one."""
    house = await locked()
    task, file = await house.submitted("north", payload={"number": 1}), await house.uploaded("north")
    await house.submitted("north", task_type="copy_file", payload={"file_id": file})
    tried = 0
    for method, path, _ in await operations(house):
        if "{task_id}" not in path and "{file_id}" not in path:
            continue
        scope = scope_of(method, path)
        parts: dict[str, Any] = {"json": {"priority": 5}} if method == "PATCH" else {}
        for query in ("", "?wait=0") if path in ("/tasks/{task_id}", "/tasks/{task_id}/result") else ("",):
            theirs = await house.ask(method, filled(path, task, file) + query, f"south-{scope}", **parts)
            missing = await house.ask(method, filled(path) + query, f"south-{scope}", **parts)
            assert theirs.status_code == 404, (method, path, theirs.text)
            asked, instead = (task, 999_999) if "{task_id}" in path else (file, MISSING_FILE)
            assert bare(theirs, asked) == bare(missing, instead), (method, path)
            tried += 1
    assert tried >= 14
    own = await house.ask("GET", f"/tasks/{task}", "north")
    assert (own.json()["status"], own.json()["priority"], own.json()["tenant"]) == ("pending", 0, "north")
    assert (await house.ask("GET", f"/files/{file}", "north")).content == b"data"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_what_is_anothers_cannot_be_named_in_a_body_either(locked: MakeHouse) -> None:
    house = await locked()
    task, file = await house.submitted("north", unique_key="u"), await house.uploaded("north")
    for body in (
        *({"task_type": "echo", "parent_id": task}, {"task_type": "copy_file", "payload": {"file_id": file}}),
        {"task_type": "batch_processing", "payload": {"task_type": "copy_file", "items": [{"file_id": file}]}},
    ):
        missing = {"task_type": "echo", "parent_id": 999_999} if "parent_id" in body else None
        for path, sent in (("/tasks", body), ("/tasks/bulk", {"tasks": [body]})):
            theirs = await house.ask("POST", path, "south", json=sent)
            assert theirs.status_code == 422, theirs.text
            if missing:
                wrong = await house.ask(
                    "POST", path, "south", json=missing if path == "/tasks" else {"tasks": [missing]}
                )
                assert bare(theirs, task) == bare(wrong, 999_999)
    assert await house.submitted("south", unique_key="u") != task, "keys are the tenant's own"
    await failed(house, task)
    for action in ("requeue", "resolve", "purge"):
        for body in ({"ids": [task]}, {"all": True}, {"task_type": "echo"}, {"queue": "default"}):
            answer = await house.ask("POST", f"/dead-letters/{action}", "south", json=body)
            assert (answer.status_code, answer.json()["matched"]) == (200, 0), action
    assert (await house.ask("GET", f"/tasks/{task}", "north")).json()["status"] == "failed"


async def failed(house: House, task_id: int) -> None:
    """The task fails for good; whatever else waits completes."""
    for task in await claim(house.client):
        wrong = Errored("ValueError", "no good", retryable=False)
        await settle(house.client, [task], wrong if task.id == task_id else Completed(JsonText("{}")))


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_lists_and_numbers_show_a_tenant_its_own_alone(locked: MakeHouse) -> None:
    house = await locked()
    tasks = {key: await house.submitted(key, tags=["t"]) for key in ("north", "south", "all")}
    await failed(house, tasks["north"])
    await house.submitted("north", queue="northern")
    for query in ("", "?status=completed", "?tag=t", "?queue=default&task_type=echo", "?limit=1", "?include=payload"):
        items = (await house.ask("GET", f"/tasks{query}", "south")).json()["items"]
        assert {item["id"] for item in items} == {tasks["south"]}, query
    assert (await house.ask("GET", "/dead-letters", "south")).json()["items"] == []
    assert (await house.ask("GET", "/dead-letters/groups", "south")).json() == {"total": 0, "items": []}
    assert (await house.ask("GET", "/queues", "south")).json() == {"items": []}
    numbers = (await house.ask("GET", "/stats", "south")).json()
    assert {name: number for name, number in numbers.items() if number} == {"completed": 1, "completed_last_hour": 1}
    everyones = (await house.ask("GET", "/stats", "all")).json()
    assert (everyones["completed"], everyones["failed"], everyones["ready"]) == (2, 1, 1)
    assert len((await house.ask("GET", "/tasks", "all")).json()["items"]) == 4
    assert [one["queue"] for one in (await house.ask("GET", "/queues", "north")).json()["items"]] == ["northern"]


async def test_a_foreign_cursor_and_a_foreign_etag_show_nothing(house: House) -> None:
    first = await house.submitted("north")
    await house.submitted("north")
    page = (await house.ask("GET", "/tasks?limit=1", "north")).json()
    assert page["next_cursor"]
    stolen = await house.ask("GET", f"/tasks?cursor={page['next_cursor']}", "south")
    assert stolen.json()["items"] == []
    tag = (await house.ask("GET", f"/tasks/{first}", "north")).headers["etag"]
    answer = await house.ask("GET", f"/tasks/{first}", "south", headers={"If-None-Match": tag})
    assert answer.status_code == 404


async def test_keys_of_a_tenant_are_made_listed_and_ended_by_its_admin_alone(house: House) -> None:
    body = {"name": "ci", "scopes": ["submit", "read"], "expires_in_seconds": 3600}
    made = await house.ask("POST", "/api-keys", "north-admin", json=body)
    assert made.status_code == 201
    key = made.json()
    assert (key["tenant"], key["scopes"]) == ("north", ["read", "submit"])
    assert made.headers["location"] == f"/api-keys/{key['id']}"
    assert made.headers["cache-control"] == "no-store"
    house.keys["ci"] = key["key"]
    assert (await house.ask("GET", "/tasks", "ci")).status_code == 200
    refused = await house.ask("POST", "/api-keys", "north-admin", json=body | {"tenant": "south"})
    assert refused.status_code == 403
    assert (await house.ask("DELETE", f"/api-keys/{key['id']}", "south-admin")).status_code == 404
    listed = (await house.ask("GET", "/api-keys", "south-admin")).json()["items"]
    assert {one["tenant"] for one in listed} == {"south"}
    secrets = [token.split(".")[1] for token in house.keys.values()]
    everything = (await house.ask("GET", "/api-keys", "admin")).text
    assert not any(secret in everything for secret in secrets)
    assert "digest" not in everything
    assert (await house.ask("DELETE", f"/api-keys/{key['id']}", "north-admin")).status_code == 204
    assert (await house.ask("GET", "/tasks", "ci")).status_code == 401


async def test_without_any_key_the_first_is_not_made_over_http(client: httpx.AsyncClient) -> None:
    """Whoever came first to an open service would lock everyone else out."""
    answer = await client.post("/api-keys", json={"name": "mine", "scopes": ["admin"]})
    assert answer.status_code == 403
    assert "python -m app.keys" in answer.json()["detail"]
    assert (await client.get("/api-keys")).json() == {"items": []}
    assert not services_of(client).ring.on


async def test_a_stranger_may_do_nothing_wherever_an_open_path_leads(house: House, monkeypatch: Any) -> None:
    """The second wall: were a path taken for an open one by mistake, its route would refuse."""
    gate = next(one.kwargs["gate"] for one in house.client.app.user_middleware if "gate" in one.kwargs)  # type: ignore[attr-defined]
    gate.public |= {"/tasks", "/stats"}
    assert (await house.client.get("/tasks")).status_code == 403
    assert (await house.client.post("/tasks", json={"task_type": "echo"})).status_code == 403
    assert (await house.client.get("/stats")).status_code == 403


async def test_a_failing_store_opens_nothing(house: House, monkeypatch: Any) -> None:
    async def away() -> None:
        raise StoreUnavailable("The database is not available: gone")

    monkeypatch.setattr(house.services.ring, "load", away)
    house.services.ring._looked_at = 0.0
    answer = await house.ask("GET", "/task-types", "unknown")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert (await house.ask("GET", "/task-types", "read")).status_code == 200
    assert (await house.ask("GET", "/task-types")).status_code == 401


async def test_who_waits_for_a_task_is_told_nothing_once_the_key_is_revoked(house: House) -> None:
    task_id = await house.submitted("all", delay_seconds=3600)
    waiting = asyncio.create_task(house.ask("GET", f"/tasks/{task_id}?wait=30", "read"))
    await asyncio.sleep(0.2)
    await house.services.keys.revoke(house.keys["read"].split(".")[0])
    await house.services.ring.load()
    await house.ask("POST", f"/tasks/{task_id}/cancel", "all")
    answer = await waiting
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "payload" not in answer.text


async def test_the_first_key_that_is_shown_is_asked_for_at_once(client: httpx.AsyncClient) -> None:
    """Until this process has heard that there are keys, nobody needs one: who shows one must not be taken for nobody."""
    services = services_of(client)
    assert (await client.get("/tasks")).status_code == 200
    await asyncio.sleep(0.15)  # longer than it takes to make a key
    _, shown = await services.keys.create("first", [Scope.READ], "north")
    await services.keys.create("other", [Scope.READ], "south")
    answer = await client.post("/tasks", json={"task_type": "echo"}, headers={"Authorization": f"Bearer {shown}"})
    assert answer.status_code == 403
    assert (await client.get("/tasks")).status_code == 401
