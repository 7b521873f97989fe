import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.workers.summary import rank

TERMS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3), max_size=5)
Vectors = Sequence[Mapping[str, float]]


def quiet() -> None:
    pass


def lexrank_by_the_book(vectors: Vectors, priors: Sequence[float]) -> list[float]:
    """The same ranking with the whole matrix of cosines, as the papers write it, and many more rounds."""
    size = range(len(vectors))
    cosines = [[0.0 if i == j else cosine(vectors[i], vectors[j]) for j in size] for i in size]
    bias = [prior / sum(priors) for prior in priors]
    links = [[entry / sum(row) for entry in row] if sum(row) > 1e-9 else bias for row in cosines]
    scores = bias
    for _ in range(200):
        scores = [
            rank.DAMPING * sum(scores[j] * links[j][i] for j in size) + (1 - rank.DAMPING) * bias[i] for i in size
        ]
    return [score / max(scores) for score in scores]


def cosine(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    length = math.hypot(*first.values()) * math.hypot(*second.values())
    return sum(weight * second.get(term, 0.0) for term, weight in first.items()) / length if length else 0.0


@given(st.lists(st.tuples(TERMS, st.floats(0.1, 3)), min_size=1, max_size=12))
def test_scores_are_those_of_lexrank_although_the_graph_is_never_built(
    sentences: list[tuple[dict[str, int], float]],
) -> None:
    vectors = rank.weights([found for found, _ in sentences])
    priors = [prior for _, prior in sentences]
    assert rank.centrality(vectors, priors, quiet) == pytest.approx(lexrank_by_the_book(vectors, priors), abs=1e-4)


def test_what_others_speak_of_scores_higher() -> None:
    vectors = rank.weights([{"bridge": 1, "town": 1}, {"bridge": 1}, {"town": 1}, {"cat": 1}])
    scores = rank.centrality(vectors, [1, 1, 1, 1], quiet)
    assert scores[0] == 1
    assert scores[0] > scores[1] > scores[3]


def test_a_higher_prior_gives_a_higher_score() -> None:
    first, second = rank.centrality(rank.weights([{"a": 1}, {"a": 1}]), [1, 2], quiet)
    assert first < second


@pytest.mark.parametrize("priors", [[0.0, 0.0], [0.0, 1.0]])
def test_sentences_without_terms_or_priors_have_finite_scores(priors: list[float]) -> None:
    scores = rank.centrality([{}, {}], priors, quiet)
    assert max(scores) == 1
    assert all(0 <= score <= 1 for score in scores)


class Counting(dict[str, float]):
    """Counts how often its terms are gone through."""

    passes = 0

    def items(self):  # type: ignore[no-untyped-def]
        Counting.passes += 1
        return super().items()


@pytest.mark.parametrize("size", [10, 1000])
def test_the_work_for_a_sentence_does_not_grow_with_the_text(size: int) -> None:
    """All sentences share a term, so that a graph of them would have size ** 2 / 2 edges."""
    vectors = [Counting({"common": 1.0, str(index): 1.0}) for index in range(size)]
    Counting.passes = 0
    scores = rank.centrality(vectors, [1.0] * size, quiet)
    assert Counting.passes == size  # each is read once, to bring it to length 1; the rounds work on those
    Counting.passes = 0
    rank.choose(scores, vectors, 10, quiet)
    # Ten choices: all are brought up to date once, for what the first one covers, and one or two for each later one.
    assert Counting.passes < 2 * size + 20


def naive_choice(scores: Sequence[float], vectors: Vectors, count: int) -> list[int]:
    """The same choice by looking at all that is left each time."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(scores)):
        covered = {term for index in chosen for term in vectors[index]}
        left = [index for index in range(len(scores)) if index not in chosen]
        values = {index: _value(scores[index], vectors[index], covered) for index in left}
        chosen.append(max(left, key=values.__getitem__))
    return sorted(chosen)


def _value(score: float, vector: Mapping[str, float], covered: set[str]) -> float:
    if not covered and not vector:
        return score
    whole = sum(vector.values())
    share = sum(weight for term, weight in vector.items() if term in covered) / whole if whole else 1.0
    return score * (1 - share**rank.REDUNDANCY_POWER)


@given(st.lists(st.tuples(TERMS.filter(bool), st.floats(0, 1)), max_size=12), st.integers(1, 12))
def test_the_choice_is_that_of_looking_at_every_sentence_each_time(
    sentences: list[tuple[dict[str, int], float]], count: int
) -> None:
    vectors: list[dict[str, float]] = [dict(found) for found, _ in sentences]
    scores = [score for _, score in sentences]
    assert rank.choose(scores, vectors, count, quiet) == naive_choice(scores, vectors, count)


def test_a_sentence_that_says_something_new_wins_over_one_that_repeats() -> None:
    vectors = [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, {"c": 1.0}]
    assert rank.choose([1.0, 0.9, 0.6], vectors, 2, quiet) == [0, 2]


def test_long_work_asks_whether_to_go_on() -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    with pytest.raises(Enough):
        rank.centrality([{"a": 1.0}], [1.0], stop)
    many = [{str(index): 1.0} for index in range(2 * rank.TICK_SENTENCES)]
    with pytest.raises(Enough):
        rank.choose([1.0] * len(many), many, len(many), stop)
