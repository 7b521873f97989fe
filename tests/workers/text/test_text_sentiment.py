from time import process_time

import pytest

from app.workers.text.language import Detection, detect
from app.workers.text.sentiment import MOST_PIECES, score

ENGLISH = Detection("en", (("en", 1.0),))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this, it is wonderful.", "positive"),
        ("This is a terrible, horrible product.", "negative"),
        ("The meeting is on Tuesday.", "neutral"),
        ("The food is not good.", "negative"),
        ("Lunch 🙂", "positive"),
    ],
)
def test_english_gets_the_label_a_reader_would_give(text: str, label: str) -> None:
    result = score(text, ENGLISH)
    assert result["label"] == label
    assert result["positive"] + result["negative"] + result["neutral"] == pytest.approx(1, abs=0.01)
    assert -1 <= result["compound"] <= 1


def test_the_model_is_named_with_its_version() -> None:
    assert score("Fine.", ENGLISH)["model"] == "vaderSentiment 3.3.2"


def test_scores_are_the_mean_of_the_sentences() -> None:
    good, bad = score("It is great.", ENGLISH)["compound"], score("It is awful.", ENGLISH)["compound"]
    both = score("It is great. It is awful.", ENGLISH)
    assert both["compound"] == pytest.approx((good + bad) / 2, abs=0.0002)
    assert (both["pieces"], both["scored_pieces"]) == (2, 2)


@pytest.mark.parametrize(
    ("text", "language"),
    [("Das ist ein schrecklich schlechter Tag", "de"), ("C'est une très bonne journée", "fr"), ("今天天气很好", "zh")],
)
def test_another_language_is_refused(text: str, language: str) -> None:
    assert score(text, detect(text)) == {
        "supported": False,
        "language": language,
        "reason": "the lexicon is English only",
    }


@pytest.mark.parametrize("text", ["foo bar baz", "!", "🙂", "漢字"])
def test_an_undecided_language_is_refused_with_the_reason(text: str) -> None:
    result = score(text, detect(text))
    assert (result["supported"], result["language"]) == (False, None)
    assert "undecided" in result["reason"]


def test_a_text_too_short_to_tell_is_scored_as_english_and_says_so() -> None:
    result = score("Hello World", detect("Hello World"))
    assert (result["language"], result["assumed_language"], result["label"]) == (None, "en", "neutral")
    assert score("Great!", detect("Great!"))["label"] == "positive"


def test_a_long_text_is_sampled_over_all_its_length() -> None:
    result = score("It is great. " * 1_000 + "It is awful. " * 1_000, ENGLISH)
    assert result["pieces"] == 2_000
    assert result["scored_pieces"] == MOST_PIECES
    assert result["positive"] == pytest.approx(result["negative"], rel=0.2)


def test_a_sentence_of_emoji_is_cut_before_it_gets_slow() -> None:
    began = process_time()
    score("Great " + "🙂" * 65_000, ENGLISH)
    assert process_time() - began < 5
