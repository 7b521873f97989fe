"""Whatever comes from outside, a log line is one line, and holds no key."""

import io
import json
import logging
from typing import Any

import pytest
import structlog

from app.core.logs import configure_logging
from tests.api.conftest import claim, errored, settle
from tests.security.conftest import House, MakeHouse

EVIL = [
    "a\r\nb",
    "a\nlevel=critical",
    "\x1b[2J\x1b[31mred",
    "\x00",
    "\x7f\x9b31m",
    "\u2028\u2029",
    "{}{x}%s%(y)s",
    "x" * 100_000,
]


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Any:
    """What is logged in one style from now on."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    structlog.reset_defaults()
    configure_logging("debug", request.param, stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def provoke(house: House) -> None:
    """Put what is evil wherever a line could take it from."""
    for text in EVIL:
        await house.submitted("all")
        for task in await claim(house.client):
            wrong = errored(retryable=False)
            await settle(house.client, [task], type(wrong)(text[:60], text, f"Traceback\n{text}", retryable=False))
        await house.ask("POST", "/breakers/echo/trip", "admin", json={"reason": text[:500]})
        await house.ask("GET", "/tasks", "read", headers={"User-Agent": text[:50].encode("unicode_escape").decode()})
        await house.ask("GET", "/tasks", "read", params={text[:20]: text[:20]})
        await house.ask("POST", "/files", "all", files={"file": (text[:200], b"data", "text/plain")})
        structlog.get_logger("app").warning("seen", text=text)
        logging.getLogger("uvicorn.access").warning('%s - "%s"', "127.0.0.1", text)
    await house.ask("POST", "/api-keys", "admin", json={"name": "new", "scopes": ["read"]})
    await house.ask("GET", "/tasks", "wrong")


@pytest.mark.parametrize("log", ["json"], indirect=True)
async def test_each_line_is_one_json_object(locked: MakeHouse, log: io.StringIO) -> None:
    house = await locked()
    await provoke(house)
    lines = log.getvalue().split("\n")[:-1]
    assert len(lines) > 30
    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert not set(line) & set("\r\x00\x1b\x7f\x9b\u2028\u2029") - {"\x7f"}


@pytest.mark.parametrize("log", ["console"], indirect=True)
async def test_a_terminal_is_told_nothing_it_would_obey(locked: MakeHouse, log: io.StringIO) -> None:
    house = await locked()
    await provoke(house)
    own = set("\x1b")  # the colours of the renderer
    said = log.getvalue()
    assert not {one for one in said if not one.isprintable()} - own - {"\n"}
    assert "\x1b[2J" not in said
    assert "\nlevel=critical" not in said


@pytest.mark.parametrize("log", ["json", "console"], indirect=True)
async def test_no_key_is_in_any_line(locked: MakeHouse, log: io.StringIO) -> None:
    house = await locked()
    await provoke(house)
    assert "key created" in log.getvalue()
    for token in (key for name, key in house.keys.items() if name != "unknown"):
        secret = token.split(".")[1]
        assert secret not in log.getvalue()
