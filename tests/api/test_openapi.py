"""The description is sound, complete, and what the service really does."""

from typing import Any

import httpx
import pytest

from app.services.submissions import Submission
from tests.api.conftest import claim, finished, submit
from tests.api.test_problems import ROUTES

ROUTES_WITH_BODY = {("/tasks", "post"): "Submission", ("/tasks/bulk", "post"): "BulkSubmission"} | {
    ("/tasks/{task_id}", "patch"): "TaskPatch"
}
VERBS = {"get", "post", "put", "patch", "delete", "head", "options", "trace"}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, verb, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
        if verb in VERBS
    ]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def resolve(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        node = node[part]
    return node


async def test_the_document_is_sound(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    assert document["info"]["version"]
    names = set()
    for path, verb, operation in operations(document):
        assert path.startswith("/")
        assert operation["operationId"] not in names
        names.add(operation["operationId"])
        assert operation["responses"], (path, verb)
        assert operation.get("description") or operation.get("summary")
        in_path = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        keys = [(one["in"], one["name"]) for one in operation.get("parameters", [])]
        assert len(keys) == len(set(keys))
        for code, response in operation["responses"].items():
            assert code.isdigit()
            assert response["description"], (path, verb, code)
    for reference in references(document):
        assert resolve(document, reference), reference


async def test_every_route_is_listed(document: dict[str, Any]) -> None:
    listed = {(path.replace("{task_id}", "1"), verb.upper()) for path, verb, _ in operations(document)}
    expected = {(path, method) for path, methods in ROUTES.items() for method in methods}
    expected -= {("/docs", "GET"), ("/openapi.json", "GET")}
    assert listed == expected | {("/tasks/bulk", "POST")}


async def test_bodies_have_their_schemas(document: dict[str, Any]) -> None:
    found = {
        (path, verb): operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        for path, verb, operation in operations(document)
        if "requestBody" in operation
    }
    assert found == ROUTES_WITH_BODY
    schema = document["components"]["schemas"]["Submission"]
    assert set(schema["properties"]) == set(Submission.model_fields)
    assert schema["required"] == ["task_type"]
    assert schema["additionalProperties"] is False


async def test_the_idempotency_key_is_described(document: dict[str, Any]) -> None:
    headers = [one["name"] for one in document["paths"]["/tasks"]["post"]["parameters"] if one["in"] == "header"]
    assert headers == ["Idempotency-Key"]


async def test_errors_are_described_as_problems_of_their_media_type(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        for code, response in operation["responses"].items():
            if int(code) >= 400 and not path.startswith("/health"):
                assert list(response["content"]) == ["application/problem+json"], (path, verb, code)
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, verb, code)


async def test_routes_that_need_the_store_say_503(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        if path not in ("/", "/health/live", "/task-types"):
            assert "503" in operation["responses"], (path, verb)


async def test_every_example_is_taken(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    examples = document["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert {"echo", "text_processing"} <= set(examples)
    for example in examples.values():
        answer = await client.post("/tasks", json=example["value"])
        assert answer.status_code == 201, answer.text


async def test_the_statuses_that_are_answered_are_the_described_ones(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    await finished(client, "completed")
    await finished(client, "failed")
    await finished(client, "cancelled")
    await submit(client)
    await claim(client)
    await submit(client, delay_seconds=600)
    tag = (await client.get("/tasks/1")).headers["etag"]
    json = {"Content-Type": "application/json"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("post", "/tasks", {"json": {"task_type": "echo"}}),
        ("post", "/tasks", {"json": {"task_type": "echo"}, "headers": {"Idempotency-Key": "k"}}),
        ("post", "/tasks", {"json": {"task_type": "echo"}, "headers": {"Idempotency-Key": "k"}}),
        ("post", "/tasks", {"json": {"task_type": "echo", "unique_key": "u"}}),
        ("post", "/tasks", {"json": {"task_type": "echo", "unique_key": "u"}}),
        ("post", "/tasks/bulk", {"json": {"tasks": [{"task_type": "echo"}]}}),
        ("get", "/tasks/1", {"headers": {"If-None-Match": tag}}),
        ("get", "/tasks?limit=0", {}),
    ]
    for path in ("/tasks", "/tasks/bulk"):
        requests += [("post", path, {"content": b"x", "headers": json}), ("post", path, {"content": b"{}"})]
        requests += [("post", path, {"json": {}}), ("post", path, {"content": b" " * (17 << 20), "headers": json})]
    for task_id in ("1", "2", "3", "4", "5", "99", "x", "9" * 30):
        for verb, rest in (
            *(("get", ""), ("get", "/result"), ("get", "/attempts"), ("post", "/cancel"), ("post", "/retry")),
            *(("patch", ""), ("delete", "")),
        ):
            given = {"json": {"priority": 1}} if verb == "patch" else {}
            requests.append((verb, f"/tasks/{task_id}{rest}", given))
    for path in (
        "/",
        "/tasks",
        "/health",
        "/health/live",
        "/health/ready",
        "/queues",
        "/workers",
        "/stats",
        "/task-types",
    ):
        requests.append(("get", path, {}))
    for verb, path, given in requests:
        answer = await client.request(verb, path, **given)
        parts = path.split("?")[0].split("/")
        template = "/".join(
            "{task_id}" if at == 2 and parts[1] == "tasks" and part != "bulk" else part for at, part in enumerate(parts)
        )
        described = document["paths"][template][verb]["responses"]
        assert str(answer.status_code) in described, (verb, path, answer.status_code, answer.text[:200])
