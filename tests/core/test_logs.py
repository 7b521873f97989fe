"""How lines look. Each test runs a process of its own, because logging is set up once for a whole process."""

import json
import subprocess
import sys
from pathlib import Path

from structlog.testing import capture_logs

from app.core.events import EventBus, LogGrown, StoreSuspect, StoreTroubled
from app.core.logs import LogSubscriber

ROOT = Path(__file__).parents[2]
PROGRAM = """
import logging, sys
import structlog
from app.core.logs import configure_logging
configure_logging(sys.argv[1], sys.argv[2])
structlog.get_logger("ours").info("hello", task=1, text="line\\nbreak \\x1b[31mred")
structlog.get_logger("ours").debug("details")
logging.getLogger("theirs").warning("careful %s", "now")
logging.getLogger("uvicorn.error").info("chatter")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("ours").exception("failed")
"""


def run(level: str, style: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, style], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stderr.splitlines()


def test_away_from_a_terminal_every_line_is_one_json_object() -> None:
    lines = [json.loads(line) for line in run("info", "auto")]
    assert [line["event"] for line in lines] == ["hello", "careful now", "failed"]
    assert lines[0]["task"] == 1
    assert lines[0]["level"] == "info"
    assert lines[0]["text"] == "line\nbreak \x1b[31mred"
    assert lines[0]["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in lines[2]["exception"]


def test_the_level_decides_what_is_written() -> None:
    assert [json.loads(line)["event"] for line in run("warning", "json")] == ["careful now", "failed"]
    assert "details" in [json.loads(line)["event"] for line in run("debug", "json")]


def test_for_people_lines_are_plain() -> None:
    lines = run("info", "console")
    assert "hello" in lines[0]
    assert not lines[0].startswith("{")


def test_trouble_with_the_store_is_told_now_and_then() -> None:
    """One line for each kind every ten seconds, which says how many there were in between."""
    now = 100.0
    bus = EventBus()
    with capture_logs() as lines:
        LogSubscriber(bus, lambda: now)
        for moment in (100.0, 101.0, 109.9, 110.0, 111.0):
            now = moment
            bus.publish(StoreTroubled("renew", "disk full"))
        bus.publish(StoreTroubled("beat", "disk full"))
    assert [(line["what"], line.get("untold")) for line in lines] == [("renew", None), ("renew", 2), ("beat", None)]


def test_a_log_that_grows_is_told_now_and_then() -> None:
    now = 100.0
    bus = EventBus()
    with capture_logs() as lines:
        LogSubscriber(bus, lambda: now)
        for moment in (100.0, 105.0, 111.0):
            now = moment
            bus.publish(LogGrown(70_000_000))
    assert [(line["log_level"], line["bytes"], line.get("untold")) for line in lines] == [
        ("warning", 70_000_000, None),
        ("warning", 70_000_000, 1),
    ]


def test_what_should_be_seen_to_is_told() -> None:
    bus = EventBus()
    with capture_logs() as lines:
        LogSubscriber(bus)
        bus.publish(StoreSuspect("fsync is off"))
    assert [(line["log_level"], line["event"]) for line in lines] == [("warning", "fsync is off")]
