"""What is told of an alert, in the words of each channel. Pure.

A notice is kept as the JSON that the signed webhook is sent, byte for byte; the other channels are told the same:
{"type": "alert.fired", "timestamp": ..., "data": {"id", "rule", "subject", "queue", "severity", "what", "value",
"threshold", "began_at", "fired_at", "cleared_at"}}, as Standard Webhooks has it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from app.core.alerts import Alert, Kind
from app.core.clock import to_milliseconds
from app.core.retry import RetryPolicy

TOLD = (
    "id",
    "rule",
    "subject",
    "queue",
    "severity",
    "what",
    "value",
    "threshold",
    "began_at",
    "fired_at",
    "cleared_at",
)
MOST_ATTEMPTS = 12
"""With waits of up to 5 s, 10 s ... an hour, half a day altogether: a channel may be away over night."""
BACKOFF = RetryPolicy(base_seconds=5.0, ceiling_seconds=2 * 3600.0, jitter=False)
CLAIMED = timedelta(seconds=90)
"""How long one sender has a notice to itself; then another may send it."""
SEND_SECONDS = 60.0
"""Longest time for one try: well within the claim."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert to be told on one channel. `lease` is the fence that every later write of its sender must carry."""

    id: int
    alert_id: int
    kind: Kind
    channel: str
    told: str
    attempts: int
    lease: int
    created_at: datetime

    @property
    def message_id(self) -> str:
        """The same for each delivery of this notice, and for no other."""
        return f"alert_{self.id}_{to_milliseconds(self.created_at)}"


def told(alert: Alert, kind: Kind, now: datetime) -> str:
    """The notice as JSON text."""
    data = {name: getattr(alert, name) for name in TOLD}
    return _json({"type": f"alert.{kind}", "timestamp": now, "data": data})


def told_for_test(now: datetime) -> str:
    """What a channel is sent to see that it works."""
    what = "This is a test of the task service's alerts. Nothing is wrong."
    data = dict.fromkeys(TOLD) | {"rule": "test", "subject": "", "severity": "warning", "what": what}
    return _json({"type": "alert.test", "timestamp": now, "data": data})


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()


_WORDS = {"alert.fired": "FIRING", "alert.cleared": "Cleared", "alert.test": "Test"}


def headline(told_text: str) -> str:
    """One line for people."""
    notice = orjson.loads(told_text)
    data = notice["data"]
    about = " ".join(str(part) for part in (data["rule"], data["subject"]) if part)
    return " ".join(f"[{_WORDS[notice['type']]}] {about}: {data['what']}".split())


def slack_body(told_text: str) -> bytes:
    """As Slack's incoming webhooks, and those that are like them, take it. What is ours holds no markup."""
    text = headline(told_text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return orjson.dumps({"text": text})


def mail_body(told_text: str) -> str:
    """The text of a message: a line for each thing there is to know."""
    data = orjson.loads(told_text)["data"]
    facts = [f"{name}: {value}" for name, value in data.items() if name != "what" and value not in (None, "")]
    return "\n".join([str(data["what"]), "", *facts, ""])
