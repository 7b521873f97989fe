"""What an executor returned or raised, as text that can be stored. Runs in the runner."""

import json
import re
import traceback
from typing import Any

from pydantic import BaseModel

# JSON spells a NUL \\u0000; an even number of backslashes before it would make it plain text.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 8_000


class Unstorable(Exception):
    """The value cannot be stored as JSON; the text says why."""


class PayloadRefused(Unstorable):
    """The payload no longer fits the model it was checked against when it was submitted."""


def result_text(value: Any, most_bytes: int) -> str:
    """`value` as strict JSON text. Raises Unstorable for what JSON has no word for, or what no store would take."""
    try:
        text = value.model_dump_json() if isinstance(value, BaseModel) else _dump(value)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise Unstorable(f"the result cannot be stored as JSON: {error}") from None
    if _NUL.search(text):
        raise Unstorable("the result holds a NUL character, which no store takes")
    if size > most_bytes:
        raise Unstorable(f"the result is {size} bytes as JSON; the limit is {most_bytes}")
    return text


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def storable(text: str, longest: int) -> str:
    """`text` without what no store takes (NUL, lone surrogates), cut to `longest` characters."""
    clean = text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def described(error: BaseException) -> tuple[str, str, str]:
    """(type, message, traceback) of an exception, safe to store whatever its author did to it."""
    try:
        message = str(error)
    except Exception as broken:  # a __str__ of user code may do anything
        message = f"(its message cannot be shown: {type(broken).__name__})"
    # The innermost frames matter most, so a long traceback loses its beginning. Our own first frame tells nothing.
    inside = error.__traceback__.tb_next if error.__traceback__ else None
    trace = "".join(traceback.format_exception(type(error), error, inside))[-LONGEST_TRACEBACK:]
    return (
        storable(type(error).__name__, 200),
        storable(message, LONGEST_MESSAGE),
        storable(trace, LONGEST_TRACEBACK),
    )
