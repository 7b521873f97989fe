"""What is written down of each thing an operator does, and how what it changed is made small and harmless. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from app.core.secrets import LOOKS_SECRET, REDACTED

ANONYMOUS = "anonymous"
"""Who calls while no keys are asked for."""

LONGEST_TEXT, MOST_MEMBERS, DEEPEST = 200, 50, 4
LONGEST_JSON = 8192
SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api_?key|authorization|credential|private_?key|cookie", re.I
)


class Action(StrEnum):
    """What was done. A word for programs; it does not change."""

    TASK_EDIT = "task.edit"
    TASK_CANCEL = "task.cancel"
    TASK_RETRY = "task.retry"
    TASK_DELETE = "task.delete"
    FILE_DELETE = "file.delete"
    DEAD_LETTERS_REQUEUE = "dead-letters.requeue"
    DEAD_LETTERS_RESOLVE = "dead-letters.resolve"
    DEAD_LETTERS_PURGE = "dead-letters.purge"
    QUEUE_CHANGE = "queue.change"
    BREAKER_TRIP = "breaker.trip"
    BREAKER_RESET = "breaker.reset"
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    KEY_REMOVE = "key.remove"
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_CHANGE = "webhook.change"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_TEST = "webhook.test"
    WEBHOOK_REDELIVER = "webhook.redeliver"
    SILENCE_CREATE = "silence.create"
    SILENCE_END = "silence.end"
    ALERTS_TEST = "alerts.test"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, from which address. `tenant` is that of the key, empty for the operators of the whole service."""

    key_id: str | None
    name: str
    tenant: str = ""
    address: str = ""


COMMAND_LINE = Actor(None, "command line")
"""Whoever runs programs where the database is."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that was done: to what, and what of it was before and is after. None where there was or is nothing."""

    action: Action
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the audit log. `before` and `after` are JSON text."""

    id: int
    at: datetime
    key_id: str | None
    key_name: str
    tenant: str
    address: str
    action: str
    target: str
    before: str | None
    after: str | None


def shown(values: Mapping[str, Any] | None) -> str | None:
    """As JSON text that is fit to be kept: no secrets, nothing long or deep."""
    if values is None:
        return None
    text = orjson.dumps(_small(values, DEEPEST), option=orjson.OPT_UTC_Z).decode()
    return text if len(text) <= LONGEST_JSON else orjson.dumps({"left_out_characters": len(text)}).decode()


def _small(value: Any, depth: int) -> Any:
    match value:
        case str():
            text = LOOKS_SECRET.sub(lambda found: (found["before"] or "") + REDACTED, value)
            return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."
        case Mapping() | list() | tuple() if depth == 0:
            return "..."
        case Mapping():
            members = list(value.items())[:MOST_MEMBERS]
            return {
                str(name): REDACTED if _is_secret(str(name), one) else _small(one, depth - 1) for name, one in members
            }
        case Sequence():
            return [_small(one, depth - 1) for one in value[:MOST_MEMBERS]]
    return value


def _is_secret(name: str, value: Any) -> bool:
    return bool(value) and not isinstance(value, bool | int | float) and SECRET_NAME.search(name) is not None


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of both differs."""
    changed = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in changed}, {name: after[name] for name in changed}
