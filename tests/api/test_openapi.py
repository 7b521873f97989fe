"""The description is sound, complete, and what the service really does."""

import re
import sys
from types import ModuleType
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.services.submissions import Submission
from tests.api.conftest import claim, finished, services_of, submit
from tests.api.test_problems import ROUTES

ROUTES_WITH_BODY = {("/tasks", "post"): "Submission", ("/tasks/bulk", "post"): "BulkSubmission"} | {
    ("/tasks/{task_id}", "patch"): "TaskPatch",
    ("/dead-letters/requeue", "post"): "Selection",
    ("/dead-letters/resolve", "post"): "Resolution",
    ("/dead-letters/purge", "post"): "Selection",
    ("/breakers/{name}/trip", "post"): "Trip",
    ("/api-keys", "post"): "KeyRequest",
    ("/queues/{name}", "patch"): "QueuePatch",
    ("/webhooks", "post"): "WebhookRequest",
    ("/webhooks/{webhook_id}", "patch"): "WebhookPatch",
    ("/session", "post"): "SignIn",
    ("/alerts/silences", "post"): "SilenceRequest",
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
        own += node["discriminator"]["mapping"].values() if isinstance(node.get("discriminator"), dict) else []
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
    listed = {(re.sub(r"{\w+}", "1", path), verb.upper()) for path, verb, _ in operations(document)}
    expected = {(path, method) for path, methods in ROUTES.items() for method in methods}
    expected -= {("/docs", "GET"), ("/openapi.json", "GET")}
    assert listed == expected


async def test_bodies_have_their_schemas(document: dict[str, Any]) -> None:
    found = {
        (path, verb): operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        for path, verb, operation in operations(document)
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert found == ROUTES_WITH_BODY
    schemas = document["components"]["schemas"]
    assert set(schemas["Submission"]["properties"]) == set(Submission.model_fields) - {"task_type", "payload"}
    assert schemas["Submission"]["unevaluatedProperties"] is False
    assert "additionalProperties" not in schemas["Submission"], "it would refuse task_type and payload"
    assert schemas["BulkSubmission"]["properties"]["tasks"]["items"] == {"$ref": "#/components/schemas/Submission"}


async def test_the_idempotency_key_is_described(document: dict[str, Any]) -> None:
    headers = [one["name"] for one in document["paths"]["/tasks"]["post"]["parameters"] if one["in"] == "header"]
    assert headers == ["Idempotency-Key", "traceparent", "tracestate"]


async def test_errors_are_described_as_problems_of_their_media_type(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        for code, response in operation["responses"].items():
            if int(code) >= 400 and not path.startswith("/health"):
                assert list(response["content"]) == ["application/problem+json"], (path, verb, code)
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (path, verb, code)


async def test_routes_that_need_the_store_say_503(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        if path not in ("/", "/diagnosis", "/health/live", "/task-types", "/task-types/{task_type}"):
            assert "503" in operation["responses"], (path, verb)
            assert ("507" in operation["responses"]) is (verb != "get"), (path, verb)


async def test_every_example_is_taken(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    examples = document["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert {"echo", "text_processing"} <= set(examples)
    await takes_every_example(client, document)


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
        "/autoscale",
        "/diagnosis",
        "/task-types",
        "/task-types/echo",
        "/task-types/nothing",
    ):
        requests.append(("get", path, {}))
    for verb, path, given in requests:
        answer = await client.request(verb, path, **given)
        parts = path.split("?")[0].split("/")
        template = "/".join(
            "{task_id}" if at == 2 and parts[1] == "tasks" and part != "bulk" else part for at, part in enumerate(parts)
        )
        template = re.sub(r"^/task-types/\w+$", "/task-types/{task_type}", template)
        described = document["paths"][template][verb]["responses"]
        assert str(answer.status_code) in described, (verb, path, answer.status_code, answer.text[:200])


# Task types


def body_of(document: dict[str, Any], path: str = "/tasks") -> dict[str, Any]:
    body: dict[str, Any] = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return body


async def takes_every_example(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    for path in ("/tasks", "/tasks/bulk"):
        for example in body_of(document, path)["examples"].values():
            if "POST /files" not in example["description"]:
                answer = await client.post(path, json=example["value"])
                assert answer.status_code == 201, answer.text


async def test_each_task_type_has_a_body_of_its_own(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    submission = document["components"]["schemas"]["Submission"]
    mapping = submission["discriminator"]["mapping"]
    registry = services_of(client).registry.offered
    assert list(mapping) == list(registry)
    assert submission["oneOf"] == [{"$ref": reference} for reference in mapping.values()]
    assert submission["discriminator"]["propertyName"] == "task_type"
    for task_type, reference in mapping.items():
        body = resolve(document, reference)
        assert body["properties"]["task_type"] == {"type": "string", "const": task_type}
        assert body["description"].startswith(registry[task_type].description)
        payload = resolve(document, body["properties"]["payload"]["$ref"])
        assert set(payload["properties"]) == set(registry[task_type].payload_schema["properties"])
    assert resolve(document, mapping["echo"])["required"] == ["task_type"], "every field of its payload has a default"
    assert resolve(document, mapping["text_processing"])["required"] == ["task_type", "payload"]
    text = document["components"]["schemas"]["Payload.TextProcessing"]["properties"]
    assert text["keywords_limit"]["default"] == 10
    assert text["keywords_limit"]["description"] == "`keywords`: how many at most."


async def test_the_document_is_made_once(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    app = client.app  # type: ignore[attr-defined]
    assert app.openapi() is app.openapi()


PLUG_IN = '''
import enum
from typing import Annotated, Any, Generic, Literal, TypeVar
from pydantic import BaseModel, ConfigDict, Field
from app.services.executors import FileId, executor

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Zoom(BaseModel):
    operation: Literal["resize"]
    width: int

class Crop(BaseModel):
    operation: Literal["crop"]
    box: tuple[int, int, int, int]

class Problem(BaseModel):
    text: str

class Node(BaseModel):
    name: str
    children: list["Node"] = []

T = TypeVar("T")
class Box(BaseModel, Generic[T]):
    content: T

class Strange:
    pass

class Picture(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    operations: list[Annotated[Zoom | Crop, Field(discriminator="operation")]]
    colour: Colour = Colour.RED
    mode: Literal["a", "b"] | Literal[3] = 3
    problem: Problem | None = None
    tree: Node | None = None
    box: Box[int] | None = None
    renamed: int = Field(3, alias="re-named")
    infinite: float = float("inf")
    large: int = Field(0, le=2**70)
    plain: Any = "#/$defs/Nothing"

class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    strange: Strange | None = None

@executor("picture:edit", payload=Picture, example={"operations": [{"operation": "resize", "width": 3}]})
def edit(payload, context):
    """Edit a picture.

    At length.
    """

@executor("picture_edit", payload=Node)
async def tree(payload, context): ...

@executor("box", payload=Box[int])
def box(payload, context): ...

@executor("odd", payload=Odd)
def odd(payload, context): ...

class Year(BaseModel):
    year: str = Field(pattern="^[0-9]{4}$")

@executor("year", payload=Year)
def year(payload, context):
    """Of a year."""

class Endless(BaseModel):
    left: "Endless"
    right: "Endless"

@executor("endless", payload=Endless)
def endless(payload, context): ...

class Upload(BaseModel):
    file_id: FileId

@executor("upload", payload=Upload, example={"file_id": "0123456789abcdef" * 2})
def upload(payload, context): ...
'''
# Models with names of the first plug-in's: some alike, some not.
OTHER_PLUG_IN = """
from pydantic import BaseModel
from app.services.executors import executor

class Zoom(BaseModel):
    anything: str

class Node(BaseModel):
    name: str
    children: list["Node"] = []

class Problem(BaseModel):
    text: str

class Picture(BaseModel):
    node: Node
    problem: Problem
    resize: Zoom

@executor("other", payload=Picture)
def other(payload, context): ...
"""


@pytest.fixture
async def plugged(settings: Settings, serve: Any, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    """An application with two plug-ins that use much of what pydantic offers."""
    modules = {"first_plug_in": PLUG_IN, "other_plug_in": OTHER_PLUG_IN}
    for name, source in modules.items():
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, name, "exec"), module.__dict__)
    client: httpx.AsyncClient = await serve(settings.model_copy(update={"executor_modules": tuple(modules)}))
    return client


@pytest.fixture
async def described(plugged: httpx.AsyncClient) -> dict[str, Any]:
    described: dict[str, Any] = (await plugged.get("/openapi.json")).json()
    return described


def payload_of(document: dict[str, Any], task_type: str) -> Any:
    mapping = document["components"]["schemas"]["Submission"]["discriminator"]["mapping"]
    return resolve(document, resolve(document, mapping[task_type])["properties"]["payload"]["$ref"])


async def test_models_of_plug_ins_survive(described: dict[str, Any]) -> None:
    picture = payload_of(described, "picture:edit")["properties"]
    assert picture["plain"]["default"] == "#/$defs/Nothing", "data is left alone"
    for name in described["components"]["schemas"]:
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
    for reference in references(described):
        assert resolve(described, reference) is not None, reference
    items = picture["operations"]["items"]
    assert set(items["discriminator"]["mapping"]) == {"resize", "crop"}
    assert resolve(described, items["discriminator"]["mapping"]["crop"])["properties"]["operation"]["const"] == "crop"
    assert resolve(described, picture["colour"]["$ref"])["enum"] == ["red", "blue"]
    assert picture["re-named"]["default"] == 3
    assert picture["large"]["maximum"] == 2**70
    assert picture["infinite"]["default"] is None
    node = payload_of(described, "picture_edit")
    assert resolve(described, node["properties"]["children"]["items"]["$ref"]) is node
    assert payload_of(described, "box")["properties"]["content"]["type"] == "integer"
    assert "strange" in payload_of(described, "odd")["properties"], "what JSON Schema cannot say may be anything"


async def test_task_types_are_listed_with_whatever_their_schemas_hold(plugged: httpx.AsyncClient) -> None:
    listed = (await plugged.get("/task-types/picture:edit")).json()
    assert listed["payload_schema"]["properties"]["large"]["maximum"] == 2**70


async def test_models_of_one_name_are_kept_apart_and_shared_where_they_are_alike(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert "instance" in schemas["Problem"]["properties"], "ours is still ours"
    assert set(schemas["Payload.Problem"]["properties"]) == {"text"}
    other = payload_of(described, "other")["properties"]
    resizes = [schemas["Payload.Zoom"], schemas["Payload.picture_edit.Zoom"]]
    assert [set(resize["properties"]) for resize in resizes] == [{"anything"}, {"operation", "width"}]
    assert resolve(described, other["resize"]["$ref"]) is resizes[0]
    assert other["node"]["$ref"].endswith("/Payload.Node"), "alike: one component"
    assert other["problem"]["$ref"].endswith("/Payload.Problem")


async def test_task_types_whose_names_would_fall_together_are_kept_apart(described: dict[str, Any]) -> None:
    assert payload_of(described, "picture:edit") is not payload_of(described, "picture_edit")


async def test_examples_are_taken_or_say_what_they_need(plugged: httpx.AsyncClient, described: dict[str, Any]) -> None:
    examples = body_of(described)["examples"]
    assert set(examples) == set(services_of(plugged).registry.offered) - {"year", "endless"}
    assert examples["picture:edit"]["summary"] == "picture:edit: Edit a picture."
    assert examples["picture:edit"]["description"] == ""
    assert examples["picture_edit"]["value"] == {"task_type": "picture_edit", "payload": {"name": "text"}}
    assert "made up" in examples["picture_edit"]["description"]
    assert "POST /files" in examples["upload"]["description"]
    mapping = described["components"]["schemas"]["Submission"]["discriminator"]["mapping"]
    for task_type in ("year", "endless"):
        assert resolve(described, mapping[task_type])["description"].endswith("There is no example of this task type.")
    await takes_every_example(plugged, described)
