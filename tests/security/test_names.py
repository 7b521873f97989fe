"""Names that clients invent without end cost the operator nothing: neither series of metrics nor memory of the API."""

import os

import httpx

from tests.api.conftest import services_of

NAMES = 10_000 if os.environ.get("CHAOS") == "long" else 1_000


async def series(client: httpx.AsyncClient) -> int:
    """Lines of the metrics that are none of comment."""
    text = (await client.get("/metrics")).text
    return sum(1 for line in text.splitlines() if line and not line.startswith("#"))


async def invented(client: httpx.AsyncClient, begin: int, end: int) -> None:
    """Tasks with names of their own wherever a name can be given."""
    for first in range(begin, end, 500):
        tasks = [
            {"task_type": "echo", "queue": f"q{number}", "tags": [f"t{number}"], "unique_key": f"u{number}"}
            | {"metadata": {f"m{number}": 1}}
            for number in range(first, min(first + 500, end))
        ]
        assert (await client.post("/tasks/bulk", json={"tasks": tasks})).status_code == 201
    for number in range(begin, end, 25):
        await client.get(f"/nothing/{number}", headers={"User-Agent": f"a{number}"})
        await client.post("/tasks", json={"task_type": f"type{number}"})
        await client.get(f"/tasks?queue=x{number}")
        await client.post(f"/breakers/b{number}/reset")


async def test_names_without_end_make_no_more_series_than_two_hundred(client: httpx.AsyncClient) -> None:
    await invented(client, 0, 200)
    few = await series(client)
    await invented(client, 200, NAMES)
    services = services_of(client)
    await services.tallies.write()
    assert (await client.get("/stats")).json()["ready"] >= NAMES
    many = await series(client)
    assert many - few < 50, (few, many)
    assert many < 5_000, "a hundred queues with some forty lines each"
