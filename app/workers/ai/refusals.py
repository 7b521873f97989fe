"""What an HTTP answer other than 2xx means for the attempt: end the task, wait, or try again by the retry policy."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from app.services.executors import Fail, Retry
from app.workers.ai.endpoint import Endpoint, shown

LONGEST_WAIT_SECONDS = 300.0
LONGEST_REASON = 500
TEMPORARY = {408, 425, 429}
"""And everything from 500 on; any other answer would be the same the next time."""
HINTS = {
    401: "Check AI_API_KEY.",
    403: "Check AI_API_KEY and what it may do.",
    404: "Check AI_BASE_URL and the model's name.",
}


class EndpointError(Exception):
    """The endpoint gave no whole answer this time. The attempt fails and the retry policy says when to try again."""


def refusal(response: httpx.Response, body: bytes, endpoint: Endpoint, now: datetime) -> Exception:
    """What to raise for an answer that is no 2xx; `body` is (the beginning of) its text, `now` aware."""
    status = f"{response.status_code} {response.reason_phrase}".strip()
    where = f"The AI endpoint {endpoint.shown} answered {status}"
    if response.is_redirect:
        target = endpoint.redact(_target(response))
        return Fail(
            f"{where}, a redirect to {target}. It is not followed, so that the key goes nowhere else: correct AI_BASE_URL."
        )
    said = reason(body.decode(errors="replace"), endpoint)
    message = f"{where}: {said}" if said else f"{where}."
    if response.status_code not in TEMPORARY and response.status_code < 500:
        hint = HINTS.get(response.status_code)
        return Fail(f"{message.rstrip('.')}. {hint}" if hint else message)
    seconds = retry_after(response.headers, now)
    return EndpointError(message) if seconds is None else Retry(seconds, message)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds a server asks to wait, at most LONGEST_WAIT_SECONDS; None where it says nothing one can read."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):  # the standard has whole seconds; some servers send fractions
        return min(float(value), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # what "-0000" gives
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT_SECONDS)


def reason(text: str, endpoint: Endpoint) -> str:
    """What a server says went wrong, in one line, without secrets, cut."""
    try:
        said = _message(json.loads(text))
    except (ValueError, RecursionError):
        said = text
    # First redacted, then cut: half a key is no longer found.
    line = " ".join(endpoint.redact(said).split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"


def _message(value: Any) -> str:
    """The sentence inside the shapes of errors that are in use: {"error": {"message"}}, {"error"}, {"message"}, {"detail"}."""
    if isinstance(value, dict):
        for name in ("error", "message", "detail"):
            if value.get(name):
                return _message(value[name])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _target(response: httpx.Response) -> str:
    try:
        return shown(response.url.join(response.headers.get("Location", "")))
    except httpx.InvalidURL:
        return "an address that cannot be read"
