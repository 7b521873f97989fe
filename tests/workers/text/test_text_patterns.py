"""No pattern may take more than linear time, whatever the text."""

import re
from time import process_time

import pytest

from app.workers.text import contacts, dates, keywords, language, money, normalize, readability, redact, units

MODULES = (contacts, dates, keywords, language, money, normalize, redact, units)
PATTERNS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": pattern
    for module in MODULES
    for name, pattern in vars(module).items()
    if isinstance(pattern, re.Pattern)
}
# What each pattern can begin with, and so go on with for longest before it fails.
SEEDS = (
    *(
        "a",
        "a.",
        "a-",
        "a_",
        "@",
        "a@",
        "a@a.",
        "a@a-",
        "x%",
        "www.",
        "http://",
        "http://(",
        "ftp://a.",
        "1",
        "1.",
        "1,",
    ),
    *(
        "1 ",
        "1-",
        "+1",
        "+1 ",
        "+1(0)",
        "(2",
        "234-",
        "234 555 ",
        "1/",
        "1 jan ",
        "may ",
        "jan. 1 ",
        "12 of ",
        "2024-1",
    ),
    *("$", "$1", "$1,111", "1.111.", "1'111", "€ ", "EUR ", "1 million ", ":", "::", "a:", "1::", "AA11", "DE89 3704 "),
    *(
        "4111 ",
        "41111",
        "a'",
        "qu'",
        "\u0301",
        "a\u0301",
        "漢\u0301",
        " ",
        "\n",
        " \n",
        "\u200d",
        "é\u200d",
        "áa",
        "es",
    ),
)


def seconds(pattern: re.Pattern[str], text: str) -> float:
    began = process_time()
    for _ in pattern.finditer(text):
        pass
    return process_time() - began


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_64_kib_of_its_own_beginnings_do_not_slow_a_pattern(name: str) -> None:
    # The slowest takes 0.03 s, a quadratic one seconds.
    assert max(seconds(PATTERNS[name], (seed * 65_536)[:65_536] + "!") for seed in SEEDS) < 0.5


def test_a_quadratic_pattern_would_be_caught() -> None:
    assert seconds(re.compile("[a-z]+@"), "a" * 65_536) > 0.5


@pytest.mark.parametrize("language", sorted(readability.SYLLABLES))
def test_a_giant_word_does_not_slow_its_syllables(language: str) -> None:
    rule = readability.SYLLABLES[language]
    for seed in ("a", "á", "áa", "es", "ia", "ée", "bc", "\u0430"):
        began = process_time()
        rule.count((seed * 65_536)[:65_536])
        assert process_time() - began < 0.5
