"""A request that leaves FastAPI nothing to check goes straight to its endpoint; every other is checked as it always was."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.routes import DirectRoute


def routes(client: httpx.AsyncClient) -> list[DirectRoute]:
    app: FastAPI = client.app  # type: ignore[attr-defined]
    return [route for route in app.routes if isinstance(route, DirectRoute)]


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that FastAPI had to look at."""
    seen: list[str] = []
    handle = APIRoute.handle

    async def spy(self: APIRoute, scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await handle(self, scope, receive, send)

    monkeypatch.setattr(APIRoute, "handle", spy)
    return seen


async def test_the_hot_routes_are_direct(client: httpx.AsyncClient, long_way: list[str]) -> None:
    made = await client.post("/tasks", json={"task_type": "echo", "payload": {"number": 1}})
    for path in (made.headers["location"], "/tasks", "/health", "/tasks/9", "/tasks/007"):
        assert (await client.get(path)).status_code in (200, 404)
    assert long_way == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/tasks/1?wait=x", 422), ("/tasks/1?wait=-1", 422), ("/tasks?limit=0", 422), ("/tasks?limit=1", 200)),
        *(("/tasks/one", 422), ("/tasks/1.5", 422), ("/tasks/-1", 404), ("/tasks/%D9%A1", 422)),
        ("/tasks/" + 30 * "9", 404),
    ],
)
async def test_what_has_to_be_checked_is(
    client: httpx.AsyncClient, long_way: list[str], path: str, status: int
) -> None:
    answer = await client.get(path)
    assert answer.status_code == status
    assert len(long_way) == 1
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_another_method_is_refused_as_ever(client: httpx.AsyncClient) -> None:
    answer = await client.put("/tasks/1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, PATCH")


async def test_every_route_is_documented_alike(client: httpx.AsyncClient) -> None:
    """Going straight must not lose a parameter from the documentation."""
    document = (await client.get("/openapi.json")).json()
    for route in routes(client):
        for method in (route.methods or ()) if route.include_in_schema else ():
            shown = document["paths"][route.path_format][method.lower()].get("parameters", [])
            assert {one["name"] for one in shown if one["in"] != "header"} == {
                one.alias for one in (*route.dependant.path_params, *route.dependant.query_params)
            }
