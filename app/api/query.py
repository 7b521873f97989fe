"""What several routes read from the query: names, cursors; and that nothing else is there."""

import base64
import re
from typing import Annotated

from fastapi import Query, Request

from app.core.errors import InvalidRequest

Name = Annotated[str, Query(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]


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
