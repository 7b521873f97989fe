"""Secrets by name, from the environment and from files alone; the hosts each one may go to; and how what this process knows is
kept out of everything it says."""

import base64
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from dotenv import dotenv_values

from app.core.errors import OutboundRefused, SettingsError
from app.core.outbound import matches
from app.core.settings import Settings

NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
PREFIX = "SECRET_"
"""Of the variables: SECRET_CRM_TOKEN is the secret crm_token."""
SHORTEST = 8
"""A shorter one would be found in ordinary words, and could not be kept out of messages."""
MOST_BYTES = 64 * 1024

REDACTED = "[redacted]"

LOOKS_SECRET = re.compile(
    r"""(?P<before>(?i:\b(?:bearer|basic)\s+|[?&](?:api_?key|key|token|access_token|secret|password|sig|signature)=))
        [A-Za-z0-9._~+/%=-]{6,}
      | \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,} | \bAIza[A-Za-z0-9_-]{20,} | \bgh[pousr]_[A-Za-z0-9]{20,}
      | \bxox[abeprs]-[A-Za-z0-9-]{10,} | \bAKIA[A-Z0-9]{16}\b | \bwhsec_[A-Za-z0-9+/=]{16,}""",
    re.VERBOSE,
)
"""Keys of the usual makes, and what stands where a key does."""

_HOME = re.compile(r"(?P<plain>http://)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9*._-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Home:
    """A host that a secret may go to; `port` None for any. `plain`: over http too."""

    host: str
    port: int | None
    plain: bool

    def takes(self, scheme: str, host: str, port: int) -> bool:
        named = matches(self.host, host) and self.port in (None, port)
        return named and (self.plain or scheme == "https")


@dataclass(frozen=True)
class Secrets:
    """What this process knows by name."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    homes: Mapping[str, tuple[Home, ...]] = field(default_factory=dict)

    def released(self, name: str, scheme: str, host: str, port: int) -> str:
        """The secret, for a request there. Raises OutboundRefused where it is not known or not meant for that host."""
        value = self.values.get(name)
        if value is None:
            raise OutboundRefused(
                f"This worker knows no secret {name!r}: set {PREFIX}{name.upper()}, or put a file {name} into SECRETS_DIR."
            )
        if len(value) < SHORTEST:
            raise OutboundRefused(f"The secret {name!r} is shorter than {SHORTEST} characters, which is none.")
        if not any(home.takes(scheme, host, port) for home in self.homes.get(name, ())):
            raise OutboundRefused(
                f"The secret {name!r} may not go to {scheme}://{host}: SECRETS_HOSTS does not say so."
            )
        return value


def load_secrets(settings: Settings) -> Secrets:
    """The named secrets of this process. Raises SettingsError for a folder or a list of hosts that cannot be read."""
    # As with the settings, `.env` counts where the environment says nothing.
    file = settings.model_config.get("env_file")
    given = {**(dotenv_values(str(file)) if file else {}), **os.environ}
    found = {name[len(PREFIX) :].lower(): value for name, value in given.items() if name.startswith(PREFIX) and value}
    if settings.secrets_dir:
        found |= _read(Path(settings.secrets_dir))
    values = {name: value for name, value in found.items() if re.match(NAME, name)}
    return Secrets(values, _homes(settings.secrets_hosts))


def _read(folder: Path) -> dict[str, str]:
    """Every file of the folder by its name; what an editor puts at the end of a line is no part of it."""
    try:
        files = [path for path in folder.iterdir() if path.is_file() and re.match(NAME, path.name)]
        return {path.name: path.read_bytes()[:MOST_BYTES].decode().rstrip("\r\n") for path in files}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"SECRETS_DIR: {folder} cannot be read: {type(error).__name__}") from None


def _homes(text: str) -> dict[str, tuple[Home, ...]]:
    homes: dict[str, tuple[Home, ...]] = {}
    for part in filter(None, re.split(r"[,\s]+", text)):
        name, equals, hosts = part.partition("=")
        if not equals or not re.match(NAME, name.lower()):
            raise SettingsError(
                f"Wrong setting: SECRETS_HOSTS: {part!r} must be name=host, several hosts with | between"
            )
        homes[name.lower()] = (*homes.get(name.lower(), ()), *(_home(host) for host in hosts.split("|")))
    return homes


def _home(text: str) -> Home:
    found = _HOME.fullmatch(text.lower())
    if found is None or "*" in found["host"].removeprefix("*."):
        raise SettingsError(f"Wrong setting: SECRETS_HOSTS: {text!r} is no host")
    host = found["host"].strip("[]")
    return Home(host, int(found["port"]) if found["port"] else None, found["plain"] is not None)


_BREAK = re.compile(r"\\+[rntRNT]?|\s+")
"""What may stand inside of base64 that was broken into lines: white space, and as it is written in JSON, in JSON in JSON and so
on. A backslash alone is what JSON may put before a slash."""
MOST_BROKEN = 2
"""So many times as long is base64 at most that is broken into lines, as far as the end of a text that was cut goes."""


class Redactor:
    """Cuts out of a text what must not be seen: every secret this process holds, however it is written."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= SHORTEST}
        in_base64 = {spelling for secret in long_enough for spelling in _in_base64(secret)}
        written = {spelling for secret in long_enough for spelling in spellings(secret)} | in_base64
        self._known = {spelling: spelling.lower() for spelling in written}
        self._in_base64 = {spelling: spelling.lower() for spelling in in_base64}
        self.longest = max(
            max((len(spelling.encode()) for spelling in written), default=0),
            MOST_BROKEN * max(map(len, in_base64), default=0),
        )
        """In bytes: so much more of a text has to be known for its beginning to be redacted before it is cut."""

    def __call__(self, text: str) -> str:
        """`text` without a known secret, in whatever case of letters."""
        if not self._known:
            return text
        # Looked for first the cheap way: nearly every line of a log holds none.
        pattern = any_of(_held(text.lower(), self._known))
        return self._joined(text if pattern is None else pattern.sub(REDACTED, text))

    def _joined(self, text: str) -> str:
        """`text` without a secret in base64 that is broken into lines."""
        if not _has_breaks(text):
            return text
        pattern = any_of(_held(_without_breaks(text.lower()), self._in_base64))
        if pattern is None:
            return text
        joined = _Joined(text)
        parts, end = [], 0
        for found in pattern.finditer(joined.text):
            parts += [text[end : joined.place(found.start())], REDACTED]
            end = joined.place(found.end() - 1) + 1
        return "".join((*parts, text[end:]))

    def beginning(self, text: str) -> str:
        """`text` that somebody has cut, redacted: what may be half a secret at its end goes too."""
        text = self(text)
        start = max(0, len(text) - self.longest)
        end = text[start:]
        kept = len(end) - _half(end, self._known.values())
        if _has_breaks(end):
            joined = _Joined(end)
            half = _half(joined.text, self._in_base64.values())
            kept = min(kept, joined.place(len(joined.text) - half)) if half else kept
        return text[: start + kept]

    def message(self, text: str) -> str:
        """`text` of an error: what looks like somebody's key goes too, known or not."""
        return LOOKS_SECRET.sub(lambda found: (found["before"] or "") + REDACTED, self(text))

    def data(self, value: Any) -> Any:
        """JSON with every string in it redacted."""
        if not self._known:
            return value
        match value:
            case str():
                return self(value)
            case dict():
                return {self.data(key): self.data(one) for key, one in value.items()}
            case list() | tuple():
                return [self.data(one) for one in value]
        return value


class _Joined:
    """A text without its breaks, and where what is left stands in the text itself."""

    def __init__(self, text: str) -> None:
        parts, self._starts, self._places = [], [0], [0]
        end = length = 0
        for found in _BREAK.finditer(text):
            parts.append(text[end : found.start()])
            length += found.start() - end
            end = found.end()
            self._starts.append(length)
            self._places.append(end)
        self.text = "".join((*parts, text[end:]))

    def place(self, joined: int) -> int:
        """Where in the text the character stands that is at `joined` without breaks."""
        part = bisect_right(self._starts, joined) - 1
        return self._places[part] + joined - self._starts[part]


def _has_breaks(text: str) -> bool:
    return "\n" in text or "\r" in text or "\\" in text


def _without_breaks(text: str) -> str:
    """The text of a `_Joined`, many times as fast, for one that holds nothing."""
    while "\\\\" in text:  # each time half as many, or `\\\\n` before an r would lose that
        text = text.replace("\\\\", "\\")
    for escape in ("\\n", "\\r", "\\t", "\\"):
        text = text.replace(escape, "")
    return "".join(text.split())


def _held(text: str, words: Mapping[str, str]) -> list[str]:
    """Those of the words that are in the text, both in small letters."""
    return [word for word, small in words.items() if small in text]


def _half(text: str, words: Iterable[str]) -> int:
    """How many characters at the end of `text` may be a beginning of one of the words, which are in small letters."""
    end = text.lower()
    return max((_overlap(end, word) for word in words), default=0)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` are a beginning of `word`."""
    for start in range(max(0, len(text) - len(word) + 1), len(text)):
        # A few characters first: to copy all that follows each place would take long for a long secret.
        if word.startswith(text[start : start + SHORTEST]) and word.startswith(text[start:]):
            return len(text) - start
    return 0


def redactor_of(settings: Settings, named: Secrets | None = None) -> Redactor:
    """Knows every secret in the settings and every named one. Raises SettingsError as `load_secrets` does."""
    named = named or load_secrets(settings)
    held = {settings.ai_api_key.get_secret_value(), *settings.webhook_keys, *named.values.values()}
    held |= {
        one.get_secret_value() for one in (settings.smtp_password, settings.alert_webhook_url, settings.alert_slack_url)
    }
    for address in (settings.database_url, settings.ai_base_url):
        parts = urlsplit(address)
        password = parts.netloc.rpartition("@")[0].partition(":")[2]
        held |= {password, unquote(password)}
    return _redactor(frozenset(held))


@lru_cache(maxsize=4)
def _redactor(held: frozenset[str]) -> Redactor:
    """Made once for what is known, not once for each call of a host."""
    return Redactor(held)


def spellings(secret: str) -> set[str]:
    """How a secret may be written where it turns up: plain, inside JSON, in a URL."""
    ascii_only, plain = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
    slashes = {ascii_only.replace("/", "\\/"), plain.replace("/", "\\/")}
    return {secret, ascii_only, plain, quote(secret, safe=""), *slashes} - {""}


def _in_base64(secret: str) -> set[str]:
    """What base64 of any text has in it where the secret is part of that text, in both alphabets. Three bytes become four
    characters, so there are three ways to begin; the characters at the edges hold bits of its neighbours too."""
    found = set()
    for before in range(3):
        text = bytes(before) + secret.encode()
        whole = slice((8 * before + 5) // 6, 8 * len(text) // 6)
        found |= {encode(text).decode()[whole] for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return found


def any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    """Finds each of these, in whatever case: servers may change that of what they say back. None for no words."""
    # Longest first: one secret may begin like another.
    ordered = sorted(set(words) - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE) if ordered else None
