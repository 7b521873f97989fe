"""The benchmark's measure, its texts, and what it is for: the summariser beats the first three sentences."""

from collections import Counter
from statistics import fmean

import pytest

from benchmarks.rouge import Rouge, longest_common_subsequence, rouge
from benchmarks.summaries import MEASURES, Comparison, compare, interval, load_texts


@pytest.mark.parametrize(
    ("candidate", "reference", "expected"),
    [
        # Lin's own example (2004, section 3.1): two of three pairs are not shared, three of four words in order are.
        ("police kill the gunman", "police killed the gunman", Rouge(3 / 4, 1 / 3, 3 / 4)),
        ("the gunman kill police", "police killed the gunman", Rouge(3 / 4, 1 / 3, 2 / 4)),
        # P = 2/2, R = 2/6, F = 2 * 1/3 / (4/3).
        ("the cat", "The CAT sat on the mat.", Rouge(1 / 2, 1 / 3, 1 / 2)),
        # A repeated word counts as often as the reference has it: 2 of 4, 2 of 3.
        ("the the the the", "the cat the", Rouge(2 * 2 / 7, 0, 2 * 2 / 7)),
        ("same words here", "same words here", Rouge(1, 1, 1)),
        ("nothing shared", "at all", Rouge(0, 0, 0)),
        ("word", "word", Rouge(1, 0, 1)),
        ("", "words", Rouge(0, 0, 0)),
        ("", "", Rouge(0, 0, 0)),
        ("東京 へ", "東京", Rouge(2 * 2 / 5, 2 * 1 / 3, 2 * 2 / 5)),
    ],
)
def test_rouge_is_as_computed_by_hand(candidate: str, reference: str, expected: Rouge) -> None:
    found = rouge(candidate, reference)
    assert (found.one, found.two, found.longest) == pytest.approx((expected.one, expected.two, expected.longest))


def test_a_common_subsequence_may_have_gaps_on_both_sides() -> None:
    assert longest_common_subsequence(list("abcbdab"), list("bdcaba")) == 4


def test_the_interval_holds_the_mean_and_is_a_point_without_variation() -> None:
    low, high = interval([0.1, 0.2, 0.3, 0.4])
    assert 0.1 < low < 0.25 < high < 0.4
    assert interval([0.5] * 5) == (0.5, 0.5)


@pytest.fixture(scope="module")
def compared() -> list[Comparison]:
    return [compare(text) for text in load_texts()]


def test_there_are_texts_of_many_kinds_and_half_of_them_are_held_out() -> None:
    texts = load_texts()
    assert len(texts) >= 24
    assert len({text.language for text in texts}) >= 3
    assert len({text.genre for text in texts}) >= 7
    assert len(set(Counter(text.half for text in texts).values())) == 1
    for text in texts:
        assert 150 <= len(text.text.split()) <= 450, text.name
        assert text.source
        # A reference is told anew: none of its sentences is copied from the text.
        assert not any(part.strip() in text.text for part in text.summary.split(". ")), text.name


@pytest.mark.parametrize("half", ["tuning", "held-out"])
@pytest.mark.parametrize("measure", MEASURES)
def test_summaries_are_better_than_the_first_three_sentences(
    compared: list[Comparison], half: str, measure: str
) -> None:
    value = MEASURES[measure]
    chosen = [one for one in compared if one.text.half == half]
    assert fmean(value(one.ours) for one in chosen) > fmean(value(one.lead) for one in chosen)
