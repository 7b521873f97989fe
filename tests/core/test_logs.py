"""How lines look. Each test runs a process of its own, because logging is set up once for a whole process."""

import json
import subprocess
import sys
from pathlib import Path

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
