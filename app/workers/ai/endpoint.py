"""The endpoint as the settings name it, and how its secrets are kept out of everything that is shown."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx

from app.core.secrets import REDACTED, any_of, spellings
from app.core.settings import Settings
from app.services.executors import Fail

SHORTEST_TELLING = 12
"""A shorter secret is a placeholder like `ollama`, a word that an answer may well hold."""
SHORTEST_VALUE = 8
"""A shorter user name or query value is no secret, and cutting it out would make messages unreadable."""

_KEY = re.compile(r"[\x21-\x7e]+")
# OpenAI shows the beginning and the end of a wrong key with stars between; that is still too much of it.
_STARRED = re.compile(r"(?<![\w.-])[\w.-]*+\*{3,}(?:[\w.*-]*[\w*])?")


@dataclass(frozen=True)
class Endpoint:
    """Where to ask and how. `shown` is the address without user name, password and query."""

    url: httpx.URL = field(repr=False)
    shown: str
    headers: dict[str, str] = field(repr=False)
    model: str | None
    silence_seconds: float
    secrets: frozenset[str] = field(repr=False)

    def redact(self, text: str) -> str:
        """`text` of an error without the key or any other secret of ours, also where it is escaped or half starred out."""
        return _STARRED.sub(REDACTED, _without(text, self.secrets))

    def redact_answer(self, text: str) -> str:
        """`text` of a model without a secret of ours, should the endpoint say it back."""
        return _without(text, self._telling)

    def certain(self, text: str) -> str:
        """As much of an unfinished answer as cannot be the beginning of a secret, redacted."""
        for secret in self._telling:
            longest = min(len(secret) - 1, len(text))
            begun = next((n for n in range(longest, 0, -1) if text[-n:].lower() == secret[:n].lower()), 0)
            text = text[: len(text) - begun]
        return self.redact_answer(text)

    @property
    def _telling(self) -> list[str]:
        return [secret for secret in self.secrets if len(secret) >= SHORTEST_TELLING]


def endpoint_of(settings: Settings) -> Endpoint:
    """The endpoint the settings name. Raises Fail where they name none, or one that cannot be used."""
    if not settings.ai_base_url:
        raise Fail("No AI endpoint is configured: set AI_BASE_URL (and AI_MODEL, AI_API_KEY) for the worker.")
    try:
        base = httpx.URL(settings.ai_base_url.strip())
    except httpx.InvalidURL:
        raise Fail("AI_BASE_URL is no address; it looks like http://localhost:11434/v1.") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise Fail("AI_BASE_URL must begin with http:// or https:// and name a host, like http://localhost:11434/v1.")
    key = settings.ai_api_key.get_secret_value().strip()
    if key and not _KEY.fullmatch(key):
        # httpx would refuse it too, with the key in its message.
        raise Fail("AI_API_KEY has characters that no key can have: only visible ASCII characters can be sent.")
    url = base.copy_with(userinfo=b"", fragment=None, path=base.path.rstrip("/") + "/chat/completions")
    userinfo = base64.b64encode(f"{base.username}:{base.password}".encode()).decode() if base.userinfo else ""
    # Identity: a compressed stream would come in larger pieces, and could unfold to any size.
    headers = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    elif userinfo:
        headers["Authorization"] = f"Basic {userinfo}"
    values = {value for value in (base.username, *base.params.values()) if len(value) >= SHORTEST_VALUE}
    return Endpoint(
        url=url,
        shown=shown(url),
        headers=headers,
        model=settings.ai_model or None,
        silence_seconds=settings.ai_timeout_seconds,
        secrets=frozenset(
            spelling for secret in (key, base.password, userinfo, *values) for spelling in spellings(secret)
        ),
    )


def shown(url: httpx.URL) -> str:
    """An address fit for a message: without user name, password, query and fragment."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _without(text: str, secrets: Iterable[str]) -> str:
    pattern = any_of(secrets)
    return text if pattern is None else pattern.sub(REDACTED, text)
