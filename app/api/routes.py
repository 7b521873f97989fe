"""`DirectRoute`: a route that calls its endpoint at once where a request leaves FastAPI nothing to check."""

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import Receive, Scope, Send

from app.api.access import CALLER, access_of, ensure_allowed

LONGEST_ID = 18
"""Digits of a whole number that every column can hold; longer ones are for the long way to refuse or convert."""


class _TaskId(StringConvertor):
    """What stands for a task in a path, written `{task_id:task}`: anything but the name of a call of its own, of which it
    would answer the methods that it does not have."""

    regex = "(?!bulk$)[^/]+"


register_url_convertor("task", _TaskId())


class DirectRoute(APIRoute):
    """Most requests have no query, and at most an id in their path. Solving the endpoint's dependencies for them, on two
    stacks of contexts, was a third of the work of a request.

    Everything else goes FastAPI's way: a query, a path parameter that is not a plain number, another method. What the
    documentation shows is the same. For endpoints that take the request, whole numbers from the path, and query
    parameters with defaults; others always go FastAPI's way.

    Each endpoint says which scope it needs, and keys without it get no further than here.
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.access = access_of(endpoint)
        needs = self.dependant
        others = (needs.header_params, needs.cookie_params, needs.body_params, needs.dependencies)
        self._direct_methods = self.methods or set()
        self._direct = (
            needs.request_param_name == "request"
            and not any(others)
            and all(one.field_info.annotation is int for one in needs.path_params)
            and not any(one.field_info.is_required() for one in needs.query_params)
        )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint with what the path says, or hand the request to FastAPI. Raises Forbidden."""
        caller = scope.get(CALLER)
        if caller is not None:
            ensure_allowed(caller, self.access)
        given = self._given(scope)
        if given is None:
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send), **given)
        await response(scope, receive, send)

    def _given(self, scope: Scope) -> dict[str, int] | None:
        """The path parameters as numbers; None if FastAPI has to look at the request."""
        if not self._direct or scope["query_string"] or scope["method"] not in self._direct_methods:
            return None
        given = {}
        for name, text in scope["path_params"].items():
            if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_ID):
                return None
            given[name] = int(text)
        return given
