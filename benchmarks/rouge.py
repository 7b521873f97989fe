"""ROUGE-1, ROUGE-2 and ROUGE-L: how much of a reference summary another one has, by shared words.

Lin (2004), "ROUGE: A Package for Automatic Evaluation of Summaries", https://aclanthology.org/W04-1013/. The F measure
with equal weights (beta = 1) of one candidate against one reference. As in his ROUGE-L for a sentence, each summary is
one sequence of words. Words are compared without case; nothing is stemmed and no stop words are left out, so that the
measure is the same for every language and shares none of the summariser's rules.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from app.workers.text import units


@dataclass(frozen=True)
class Rouge:
    """F measures from 0 to 1."""

    one: float
    two: float
    longest: float


def rouge(candidate: str, reference: str) -> Rouge:
    """How well `candidate` fits `reference`; 0 where either has no words (for two: no pair of words)."""
    here, there = _words(candidate), _words(reference)
    return Rouge(
        _overlap(here, there),
        _overlap(pairwise(here), pairwise(there)),
        _f_measure(longest_common_subsequence(here, there), len(here), len(there)),
    )


def _words(text: str) -> list[str]:
    return [units.fold(word) for word in units.words(text)]


def _overlap(candidate: Iterable[object], reference: Iterable[object]) -> float:
    """Each word or pair counts as often as it is in both."""
    here, there = Counter(candidate), Counter(reference)
    return _f_measure((here & there).total(), here.total(), there.total())


def _f_measure(shared: int, candidate: int, reference: int) -> float:
    # 2PR / (P + R) with P = shared / candidate and R = shared / reference.
    return 2 * shared / (candidate + reference) if shared else 0.0


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """How many words are in both in the same order, gaps allowed."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = lengths[column]
            lengths[column] = diagonal + 1 if word == other else max(above, lengths[column - 1])
            diagonal = above
    return lengths[-1]
