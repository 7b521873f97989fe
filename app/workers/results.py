"""What an executor returned or raised, as text that can be stored. Runs in the runner."""

import contextlib
import json
import re
import resource
import traceback
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import BaseModel

from app.core import strict_json
from app.core.errors import MalformedJson

# JSON spells a NUL \\u0000; an even number of backslashes before it would make it plain text.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

DEEPEST_RESULT = 254
"""Levels of nesting that every reader of JSON we know takes; also what orjson writes at most."""
LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 8_000
MOST_LOOKED_AT = 256 * 1024
MARGIN = 16 * 1024
"""Characters; no secret is longer."""

_NAME_OF_CLASS: Callable[[type], str] = vars(type)["__name__"].__get__
"""Gives the name even where a metaclass of user code has its own idea of `__name__`."""
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_LONG_NUMBER = re.compile(r"\d{19}")
_NOTHING_BUT_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


class Unstorable(Exception):
    """The value cannot be stored as JSON; the text says why."""


class PayloadRefused(Unstorable):
    """The payload no longer fits the model it was checked against when it was submitted."""


def result_text(value: Any, most_bytes: int) -> str:
    """`value` as strict JSON text. Raises Unstorable for what JSON has no word for, for what a reader would find changed
    (keys that are the same as text, integers beyond 64 bits), and for what no store would take."""
    try:
        text = _model_text(value) if isinstance(value, BaseModel) else _text(value)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError, MalformedJson) as error:
        raise Unstorable(f"the result cannot be stored as JSON: {_reason(error)}") from None
    if _NUL.search(text):
        raise Unstorable("the result holds a NUL character, which no store takes")
    if size > most_bytes:
        raise Unstorable(f"the result is {size} bytes as JSON; the limit is {most_bytes}")
    return text


def _text(value: Any) -> str:
    text = _encode(value)
    if not _plain(value) or _LONG_NUMBER.search(text):
        strict_json.parse(text.encode(), DEEPEST_RESULT)
    return text


def _plain(value: Any) -> bool:
    """Whether every key is a string, no integer is too large and nothing is too deep, asked the quickest way there is."""
    try:
        orjson.dumps(value, option=_NOTHING_BUT_JSON)
    except TypeError:
        return False
    return True


def _model_text(model: BaseModel) -> str:
    text = model.model_dump_json()
    strict_json.parse(text.encode(), DEEPEST_RESULT)
    if "null" in text:  # how pydantic writes NaN and infinities
        _encode(model.model_dump(mode="json"))
    return text


def _reason(error: Exception) -> str:
    return str(error).replace("The body is", "it is") if isinstance(error, MalformedJson) else str(error)


def storable(text: str, longest: int) -> str:
    """`text` without what no store takes (NUL, lone surrogates), cut to `longest` characters."""
    clean = text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def described(error: BaseException, redact: Callable[[str], str] = str) -> tuple[str, str, str]:
    """(type, message, traceback) of an exception, safe to store whatever its author did to it."""
    # Memory that the frames hold is wanted for the words about it.
    if isinstance(error, MemoryError):
        with contextlib.suppress(RuntimeError):  # a generator among them that runs still
            traceback.clear_frames(error.__traceback__)
    return (
        storable(_NAME_OF_CLASS(type(error)), 200),
        storable(redacted_beginning(_message(error), redact), LONGEST_MESSAGE),
        storable(_redacted_end(_trace(error), redact)[-LONGEST_TRACEBACK:], LONGEST_TRACEBACK),
    )


def redacted_beginning(text: str, redact: Callable[[str], str]) -> str:
    """Redacted. Of a huge text only so much as can be seen at all: to look through all of it takes many seconds. What may be
    half a secret, where it was cut, goes too."""
    return redact(text) if len(text) <= MOST_LOOKED_AT else redact(text[:MOST_LOOKED_AT])[:-MARGIN] + "…"


def _redacted_end(text: str, redact: Callable[[str], str]) -> str:
    return redact(text) if len(text) <= MOST_LOOKED_AT else redact(text[-MOST_LOOKED_AT:])[MARGIN:]


def _message(error: BaseException) -> str:
    try:
        return str(error) or (_out_of_memory() if isinstance(error, MemoryError) else "")
    except BaseException as broken:  # a __str__ of user code may do anything
        return f"(its message cannot be shown: {type(broken).__name__})"


def _out_of_memory() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return "out of memory"
    return f"out of memory: a runner may have {limit} bytes (RUNNER_MEMORY_BYTES)"


def _trace(error: BaseException) -> str:
    # The innermost frames matter most, so a long traceback loses its beginning. Our own first frame tells nothing.
    inside = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        return "".join(traceback.format_exception(type(error), error, inside))
    except BaseException as broken:  # its notes, its cause or its class may do anything too
        return f"(its traceback cannot be shown: {type(broken).__name__})"
