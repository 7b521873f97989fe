import httpx


async def test_a_submitted_task_is_stored_and_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/tasks/", json={"task_type": "echo", "payload": {"number": 7}})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/tasks/1"
    found = await client.get("/tasks/1")
    assert found.status_code == 200
    assert found.json() == answer.json()
