"""The OpenAPI document and its page, with every asset served from here: it works without a network.

Bodies are read by hand (strictly, and only once), so their schemas are added here.
"""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.staticfiles import StaticFiles

from app.api.schemas import BulkSubmission, Resolution, Selection, TaskPatch, Trip
from app.services.executors import ExecutorRegistry
from app.services.submissions import Submission

_BODIES = (Submission, BulkSubmission, TaskPatch, Selection, Resolution, Trip)
_REFERENCE = "#/components/schemas/{model}"


def json_body(schema: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What a route that reads its own body tells OpenAPI about it."""
    extra: dict[str, Any] = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=schema)}}},
        }
    }
    if headers:
        extra["parameters"] = [
            {"in": "header", "name": name, "required": False, "schema": {"type": "string"}, "description": text}
            for name, text in headers.items()
        ]
    return extra


def add_documentation(app: FastAPI, registry: ExecutorRegistry) -> None:
    """Serve /openapi.json and /docs. The document is made at the first request and kept."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, registry)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the documented way to replace it
    app.mount("/docs/assets", StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def show_documentation(request: Request) -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )


def _document(app: FastAPI, registry: ExecutorRegistry) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REFERENCE)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(schemas["$defs"])
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                _as_problem(answer)
    content = document["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]
    content["examples"] = {
        executor.task_type: {"value": {"task_type": executor.task_type, "payload": dict(executor.example)}}
        for executor in registry.values()
        if executor.example is not None
    }
    return document


def _as_problem(answer: dict[str, Any]) -> None:
    """Give a described error its media type; FastAPI knows only one for every answer of a route."""
    content = answer.get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
        content["application/problem+json"] = content.pop("application/json")
