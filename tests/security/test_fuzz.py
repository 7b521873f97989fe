"""With `CHAOS=long` a minute for each reader of test_parsers.py; without it one of them, to see that the program works."""

import importlib.util
import os

import pytest

from tests.security import fuzz

LONG = os.environ.get("CHAOS") == "long"
OPTIONS = ["-max_total_time=60"] if LONG else ["-runs=300"]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no atheris for this platform")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", fuzz.names() if LONG else fuzz.names(["cursor"]))
def test_what_reads_texts_of_strangers_holds_where_inputs_are_led(name: str) -> None:
    held, said = fuzz.run(name, OPTIONS)
    assert held, said
