"""The OpenAPI document and its page, with every asset served from here: it works without a network.

Bodies are read by hand (strictly, and only once), so their schemas are added here: one for each task type, with the
payload its executor takes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from app.api.routes import DirectRoute
from app.api.schemas import (
    BulkSubmission,
    KeyRequest,
    QueuePatch,
    Resolution,
    Selection,
    SignIn,
    SilenceRequest,
    TaskPatch,
    Trip,
    WebhookPatch,
    WebhookRequest,
)
from app.services.executors import Executor, named_files
from app.services.submissions import Submission

FULL = "The disk is full; try again after Retry-After seconds, or when somebody has made room."
_BODIES = (
    *(Submission, BulkSubmission, TaskPatch, Selection, Resolution, Trip, KeyRequest, QueuePatch, SignIn),
    *(WebhookRequest, WebhookPatch, SilenceRequest),
)
SCHEME = "key"
KEYS = "A key made by `python -m app.keys` or POST /api-keys. Without any key in the service, none is asked for."
REFUSED = {
    "401": "There is no key, or one that opens nothing.",
    "403": "The key may not do this.",
    "429": "Too many requests, or too many waiting tasks of the tenant; try again after Retry-After seconds.",
}
_REFERENCE = "#/components/schemas/{model}"
_PREFIX = "Submission."
_DEFINITION = re.compile(r'"#/\$defs/([^"]+)"')


def json_body(schema: str, headers: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """What a route that reads its own body tells OpenAPI about it, and the schemas of headers that it reads itself."""
    extra: dict[str, Any] = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _reference(schema)}}}
    }
    if headers:
        extra["parameters"] = [
            {"in": "header", "name": name, "required": False, "schema": {"type": "string"} | schema}
            for name, schema in headers.items()
        ]
    return extra


def add_documentation(app: FastAPI, registry: Mapping[str, Executor]) -> None:
    """Serve /openapi.json and /docs. The document is made at the first request and kept."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, registry)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the documented way to replace it
    app.mount("/docs/assets", Assets(directory=str(files("fastapi_offline") / "static")), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def show_documentation(request: Request) -> Response:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=request.app.title,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )
        page.headers["Content-Security-Policy"] = _policy(bytes(page.body))
        return page


class Assets(StaticFiles):
    """Files that are nobody's, and large: they may be kept, and are asked for again only if they changed."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _policy(page: bytes) -> str:
    """No script runs but those of this service, and the very one within the page. Its styles are made by scripts."""
    digests = [hashlib.sha256(script).digest() for script in re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)]
    scripts = " ".join(["'self'", *(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _document(app: FastAPI, registry: Mapping[str, Executor]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REFERENCE)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(schemas["$defs"])
    _describe_keys(document, app.routes)
    for path in document["paths"].values():
        for verb, operation in path.items():
            if verb != "get" and "503" in operation["responses"]:
                operation["responses"]["507"] = {**operation["responses"]["503"], "description": FULL}
            for answer in operation["responses"].values():
                _as_problem(answer)
    if registry:
        _describe_task_types(document["paths"], components, registry)
    return document


def _describe_keys(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Say which scope each operation asks for. No key at all is right too, as long as none was made."""
    document["components"]["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer", "description": KEYS}}
    for route in routes:
        if not isinstance(route, DirectRoute) or route.access.scope is None:
            continue
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            operation["security"] = [{SCHEME: [route.access.scope.value]}, {}]
            for status, description in REFUSED.items():
                content = {"application/json": {"schema": _reference("Problem")}}
                operation["responses"].setdefault(status, {"description": description, "content": content})


def _as_problem(answer: dict[str, Any]) -> None:
    """Give a described error its media type; FastAPI knows only one for every answer of a route."""
    content = answer.get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
        content["application/problem+json"] = content.pop("application/json")


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=name)}


def _describe_task_types(paths: dict[str, Any], components: dict[str, Any], registry: Mapping[str, Executor]) -> None:
    """Make `Submission` what every task may have beside one of as many schemas as there are task types, each with an example.

    `Submission.TYPE` has the type and its payload, `Payload.MODEL`. No name of ours has a dot, so the models of plug-ins
    cannot take the place of anything here.
    """
    names = _component_names(registry)
    payloads = _add_payloads(components, registry, names)
    examples = {}
    for task_type, executor in registry.items():
        payload, note = _example(executor)
        components[names[task_type]] = _task_of(executor, payloads[task_type], note)
        if payload is not None:
            summary = ": ".join([task_type, *executor.description.splitlines()[:1]])
            example = {"task_type": task_type, "payload": payload}
            examples[task_type] = {"summary": summary, "description": note, "value": example}
    submission = components[Submission.__name__]
    del submission["properties"]["task_type"], submission["properties"]["payload"], submission["required"]
    # Not additionalProperties, which would refuse what only the alternatives name.
    submission["unevaluatedProperties"] = submission.pop("additionalProperties")
    submission["oneOf"] = [_reference(name) for name in names.values()]
    submission["discriminator"] = {
        "propertyName": "task_type",
        "mapping": {task_type: _REFERENCE.format(model=name) for task_type, name in names.items()},
    }
    _content(paths, "/tasks")["examples"] = examples
    _content(paths, "/tasks/bulk")["examples"] = {
        task_type: one | {"value": {"tasks": [one["value"]]}} for task_type, one in examples.items()
    }


def _task_of(executor: Executor, payload: dict[str, Any], note: str) -> dict[str, Any]:
    return {
        "title": f"Task of type {executor.task_type}",
        "description": "\n\n".join(filter(None, (executor.description, note))),
        "type": "object",
        "properties": {"task_type": {"type": "string", "const": executor.task_type}, "payload": payload},
        "required": ["task_type"] if _fits(executor, {}) else ["task_type", "payload"],
    }


def _content(paths: dict[str, Any], path: str) -> dict[str, Any]:
    content: dict[str, Any] = paths[path]["post"]["requestBody"]["content"]["application/json"]
    return content


def _add_payloads(
    components: dict[str, Any], registry: Mapping[str, Executor], names: Mapping[str, str]
) -> dict[str, Any]:
    """Add every payload model, and what it is made of, as `Payload.MODEL`; where another model has that name already, as
    `Payload.TYPE.MODEL`. Returns the schema to use for each task type's payload."""
    meanings: dict[str, str] = {}
    payloads = {}
    for task_type, executor in registry.items():
        schema = executor.payload_schema
        parts: dict[str, Any] = {**schema.get("$defs", {})}
        root = re.sub(r"[^A-Za-z0-9._-]", "_", executor.payload.__name__)
        while root in parts:
            root += "_"
        if "$ref" not in schema:  # a model that refers to itself is among its own definitions already
            parts[root] = {key: value for key, value in schema.items() if key != "$defs"}
        texts = {name: json.dumps(part) for name, part in parts.items()}
        own = {name: _own_name(name, names[task_type], _meaning(name, texts), meanings) for name in texts}

        def moved(found: re.Match[str], own: Mapping[str, str] = own) -> str:
            return f'"{_REFERENCE.format(model=own[found[1]])}"' if found[1] in own else found[0]

        components.update({own[name]: json.loads(_DEFINITION.sub(moved, text)) for name, text in texts.items()})
        payloads[task_type] = _reference(own[schema.get("$ref", root).rsplit("/", 1)[-1]])
    return payloads


def _meaning(name: str, texts: Mapping[str, str]) -> str:
    """A definition with all it leads to: two that read alike differ if what they name differs."""
    reached, ahead = {name}, [name]
    while ahead:
        new = set(_DEFINITION.findall(texts[ahead.pop()])) & texts.keys() - reached
        reached |= new
        ahead += new
    return "\n".join(f"{one} {texts[one]}" for one in sorted(reached))


def _own_name(name: str, submission: str, meaning: str, meanings: dict[str, str]) -> str:
    """The component that stands for `meaning`, noted in `meanings`: its plain name, unless that means something else."""
    own = f"Payload.{name}"
    if meanings.setdefault(own, meaning) != meaning:
        own = f"Payload.{submission.removeprefix(_PREFIX)}.{name}"
    while meanings.setdefault(own, meaning) != meaning:
        own += "_"
    return own


def _component_names(registry: Mapping[str, Executor]) -> dict[str, str]:
    """A name for each task type that OpenAPI allows (no colon), and no two alike."""
    names: dict[str, str] = {}
    for task_type in registry:
        plain = name = _PREFIX + task_type.replace(":", "_")
        number = 1
        while name in names.values():
            number += 1
            name = f"{plain}_{number}"
        names[task_type] = name
    return names


def _example(executor: Executor) -> tuple[Any, str]:
    """An example payload and what to know about it. None where the executor has none and none can be made up."""
    if executor.example is not None:
        example = dict(executor.example)
        if named_files(executor.payload.model_validate_json(json.dumps(example))):
            return example, "The example names a file: upload one with POST /files first, and put its id there."
        return example, ""
    try:
        made_up = _smallest(executor.payload_schema, executor.payload_schema.get("$defs", {}))
    except Exception:  # authors may add anything to a schema
        made_up = None
    if not isinstance(made_up, dict) or not _fits(executor, made_up):
        return None, "There is no example of this task type."
    return made_up, "The example was made up from the schema: it is accepted, but may be of no use."


def _fits(executor: Executor, payload: Any) -> bool:
    try:
        executor.payload.model_validate_json(json.dumps(payload))
    except Exception:  # a validator of user code may raise anything
        return False
    return True


def _smallest(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> Any:
    """A small value for a schema: required properties alone, first alternatives, shortest texts. It may not fit (patterns,
    formats and validators are not looked at). Raises ValueError where a value would be large, or cannot be made up."""
    if depth > 16:  # a recursive model without an end
        raise ValueError("too deep")
    if schema.get("minLength", 0) > 100 or schema.get("minItems", 0) > 10:
        raise ValueError("too large")
    match schema:
        case {"default": value} | {"const": value} | {"examples": [value, *_]} | {"enum": [value, *_]}:
            return value
        case {"$ref": str(reference)}:
            return _smallest(definitions[reference.rsplit("/", 1)[1]], definitions, depth + 1)
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]} | {"allOf": [first, *_]}:
            return _smallest(first, definitions, depth + 1)
        case {"type": "object"}:
            properties = schema.get("properties", {})
            return {name: _smallest(properties[name], definitions, depth + 1) for name in schema.get("required", ())}
        case {"type": "array"}:
            items = schema.get("items", {"type": "null"})
            return [_smallest(items, definitions, depth + 1) for _ in range(schema.get("minItems", 0))]
        case {"type": "string"}:
            return "text".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
        case {"type": "integer" | "number"}:
            return schema.get("minimum", max(0, schema.get("exclusiveMinimum", -1) + 1))
        case {"type": "boolean"}:
            return False
        case {"type": "null"}:
            return None
    raise ValueError("unknown type")
