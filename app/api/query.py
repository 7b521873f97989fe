"""What several routes read from the query: names, cursors; and that nothing else is there."""

import base64
import re
from typing import Annotated

from fastapi import Query, Request
from pydantic import AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError

from app.core.errors import InvalidRequest

Name = Annotated[str, Query(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


def _written(given: object) -> object:
    # Pydantic would take a number for seconds since 1970.
    if isinstance(given, str) and re.fullmatch(r"\s*[+-]?[0-9.]+\s*", given):
        raise PydanticCustomError("moment", "must be a moment like 2026-01-31T12:00:00Z")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]


def refuse_unknown_query(request: Request, *known: str) -> None:
    """Raise InvalidRequest for a query parameter nobody reads: a filter with a typo would otherwise list everything."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in known:
            message = f"{name[:100]}: there is no such parameter here. Known: {', '.join(known)}."
            raise InvalidRequest(
                message, [{"location": ["query", name], "message": message, "type": "extra_forbidden"}]
            )


def words_of(parameter: str, given: str | None, known: tuple[str, ...]) -> set[str]:
    """What a parameter like `include=payload,result` names, each word once. Raises InvalidRequest."""
    words = [] if given is None else given.split(",")
    if len(words) != len(set(words)) or not set(words) <= set(known):
        message = f"{parameter}: name each of {', '.join(known)} once at most, with commas between."
        raise InvalidRequest(message, [{"location": ["query", parameter], "message": message, "type": "value_error"}])
    return set(words)


def encoded_cursor(before_id: int) -> str:
    """Where the next page begins, as something to hand back and not to read."""
    return base64.urlsafe_b64encode(f"before:{before_id}".encode()).decode().rstrip("=")


def decoded_cursor(cursor: str) -> int:
    """The id a cursor stands for. Raises InvalidRequest."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        found = re.fullmatch(r"before:([0-9]{1,18})", text)
    except ValueError:
        found = None
    if found is None:
        message = "cursor: use a next_cursor as it was given."
        raise InvalidRequest(message, [{"location": ["query", "cursor"], "message": message, "type": "value_error"}])
    return int(found[1])
