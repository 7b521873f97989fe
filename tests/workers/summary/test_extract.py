import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.workers.summary.extract import MOST_SENTENCES, summarize
from app.workers.text import units

LARGEST = 256 * 1024
ARTICLE = (
    "The harbour of Kelmouth will be dredged this summer, the port authority said. The harbour has lost two metres of"
    " depth in ten years, and large ships can no longer enter it. Gulls are often seen there. Dredging the harbour costs"
    " nine million, of which the port pays half. The port expects the ships to come back next year. My aunt likes tea."
)
# Bits of sentences that fit each other, so that texts have much in common and repeat themselves.
TEXTS = st.lists(
    st.sampled_from(
        [
            "The harbour is deep. ",
            "Ships come. ",
            "Ships come. ",
            "A\n\n",
            "# Ships\n",
            "- ships\n",
            "港は深い。",
            "🙂 ",
        ]
    )
).map("".join) | st.text(max_size=200)


def summary_of(text: str, count: int = 3, ratio: float | None = None) -> dict[str, Any]:
    return summarize(text, count, ratio, lambda percent, message: None)


def chosen(text: str, count: int = 3, ratio: float | None = None) -> list[str]:
    return [one["text"] for one in summary_of(text, count, ratio)["sentences"]]


def test_the_summary_holds_what_the_text_is_about_and_not_its_asides() -> None:
    result = summary_of(ARTICLE)
    assert [one["position"] for one in result["sentences"]] == [0, 1, 3]
    assert result["summary"] == " ".join(one["text"] for one in result["sentences"])
    assert (result["language"], result["stop_words"], result["sentence_count"]) == ("en", True, 6)
    assert result["compression"] == round(len(result["summary"]) / len(ARTICLE), 4)
    assert (result["provider"], result["model"]) == ("local", "lexrank-position/1")
    assert "reason" not in result


@given(TEXTS, st.integers(1, 50))
def test_sentences_are_slices_in_order_and_never_more_than_asked_for(text: str, count: int) -> None:
    result = summary_of(text, count)
    found = result["sentences"]
    assert len(found) <= min(count, result["sentence_count"])
    assert bool(found) == units.has_word(text) == ("reason" not in result)
    for one in found:
        assert text[one["start"] : one["end"]] == one["text"]
        assert 0 <= one["score"] <= 1
        assert 0 <= one["position"] < result["sentence_count"]
    for before, after in pairwise(found):
        assert before["end"] <= after["start"]
        assert before["position"] < after["position"]
    assert summary_of(text, count) == result


@given(TEXTS.filter(units.has_word), st.floats(0, 1, exclude_min=True))
def test_a_ratio_gives_its_share_of_the_sentences_and_at_least_one(text: str, ratio: float) -> None:
    result = summary_of(text, ratio=ratio)
    assert 1 <= len(result["sentences"]) <= max(1, result["sentence_count"] * ratio + 1e-6)


def test_a_ratio_is_taken_as_written() -> None:
    """0.29 * 100 is a little less than 29 in binary."""
    text = " ".join(f"Word{number} stands alone here." for number in range(100))
    assert len(chosen(text, ratio=0.29)) == 29


def test_a_ratio_gives_no_more_than_a_result_can_hold() -> None:
    text = "".join(f"N{number}. " for number in range(60_000))[:LARGEST]
    result = summary_of(text, ratio=1)
    assert len(result["sentences"]) == MOST_SENTENCES < result["sentence_count"]
    assert len(json.dumps(result)) < 2**20


def test_all_sentences_are_given_where_there_are_fewer_than_asked_for() -> None:
    assert chosen("One sentence only.") == ["One sentence only."]
    assert chosen("A dog barked. Two cats ran.", 50) == ["A dog barked.", "Two cats ran."]


def test_a_repeated_sentence_is_taken_once_however_it_is_written() -> None:
    text = "The harbour will be closed. " * 5 + "THE HARBOUR will be closed! Ships must wait outside. "
    assert chosen(text) == ["The harbour will be closed.", "Ships must wait outside."]


def test_a_sentence_that_differs_by_a_stop_word_is_no_repetition() -> None:
    assert chosen("The port is closed. The port is not closed.") == ["The port is closed.", "The port is not closed."]


def test_of_two_sentences_that_say_nearly_the_same_one_is_taken() -> None:
    found = chosen(
        "The council closed the old harbour bridge on Monday morning. "
        "On Monday the council closed the old harbour bridge. "
        "Shopkeepers on the north bank fear for their trade before Christmas.",
        2,
    )
    assert found[1].startswith("Shopkeepers")


def test_headings_are_left_out() -> None:
    assert chosen(f"# The harbour\n\nDear reader,\n\n{ARTICLE}", 50)[0].startswith("The harbour of Kelmouth")


def test_line_breaks_inside_a_sentence_do_not_reach_the_summary() -> None:
    result = summary_of("The harbour\nis deep.\r\n\r\nShips\u2028come.")
    assert result["summary"] == "The harbour is deep. Ships come."
    assert result["sentences"][0]["text"] == "The harbour\nis deep."


@pytest.mark.parametrize(
    ("text", "language", "stop_words", "expected"),
    [
        (
            "Die Brücke ist gesperrt. Das Wetter war schön. Die Sperrung der Brücke dauert einen Monat lang.",
            "de",
            True,
            "Die Brücke ist gesperrt. Die Sperrung der Brücke dauert einen Monat lang.",
        ),
        (
            "东京是日本的首都。今天天气很好。东京的地铁非常繁忙。每天很多人乘坐东京的地铁。",
            "zh",
            False,
            "东京的地铁非常繁忙。每天很多人乘坐东京的地铁。",
        ),
        (
            "القاهرة هي عاصمة مصر. هل زرتها؟ نهر النيل يمر عبر القاهرة.",
            "ar",
            False,
            "القاهرة هي عاصمة مصر. نهر النيل يمر عبر القاهرة.",
        ),
    ],
)
def test_many_languages_are_summarized_and_one_without_stop_words_is_said_to_be(
    text: str, language: str, stop_words: bool, expected: str
) -> None:
    result = summary_of(text, 2)
    assert (result["summary"], result["language"], result["stop_words"]) == (expected, language, stop_words)


def test_an_assumed_language_is_not_shown_as_a_fact() -> None:
    result = summary_of("Hello World")
    assert (result["language"], result["assumed_language"], result["summary"]) == (None, "en", "Hello World")


@pytest.mark.parametrize("text", ["!!!", "🙂", "\u200b", "\u0301", "\x00", "---\n***"])
def test_a_text_without_words_has_an_empty_summary_and_says_why(text: str) -> None:
    result = summary_of(text)
    assert (result["summary"], result["sentences"]) == ("", [])
    assert result["reason"] == "the text has no words"


@pytest.mark.parametrize(
    "seed",
    [
        "hello world ",
        "A. ",
        "a,",
        "“a. ",
        "- a.b\n",
        "# a\n",
        "a\n\n",
        "1. ",
        "🙂 a. ",
        "漢字。",
        "x",
        "\u0301",
        "สวัสดี ",
    ],
)
def test_256_kib_of_anything_are_summarized(seed: str) -> None:
    text = "a" + seed * (LARGEST // len(seed.encode()))
    result = summary_of(text, 50)
    assert 1 <= len(result["sentences"]) <= 50
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_progress_rises_and_is_told_again_every_thousand_sentences() -> None:
    def told(text: str) -> list[tuple[float, str]]:
        reports: list[tuple[float, str]] = []
        summarize(text, 3, None, lambda percent, message: reports.append((percent, message)))
        return reports

    for text, times in ((ARTICLE, 1), ("".join(f"Ship{number} came in today. " for number in range(4500)), 5)):
        percents = [percent for percent, _ in told(text)]
        assert percents == sorted(percents)
        assert all(0 <= percent <= 100 for percent in percents)
        assert [message for _, message in told(text)].count("comparing the sentences") == times
