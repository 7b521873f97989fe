"""Which sentences of a text say most of what it says: a ranking by shared terms, and a choice that does not repeat itself."""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

DAMPING = 0.5
"""How much of a score comes from other sentences. PageRank's 0.85 is for the web; a short text has few links, and there
the place of a sentence says as much as they do. From 0.5 to 0.7 made no difference on the benchmark's tuning half."""
ROUNDS = 20
"""At most. Each round at least halves the error (DAMPING): after these it is below 2 ** -20, less than is shown."""
SETTLED = 1e-7
"""Rounds end early once all scores together, whose sum is at most 1, change by less."""
REDUNDANCY_POWER = 2
"""A sentence that says only what is said already loses all of its score, one that shares its topic little. The first
power and the second were equally good on the tuning half, higher ones worse; the second spares shared topics more."""
TICK_SENTENCES = 1000

Terms = Mapping[str, int]
Tick = Callable[[], None]
"""Called now and then in long work. May raise, which ends it."""


def weights(sentences: Sequence[Terms]) -> list[dict[str, float]]:
    """How much each term counts in each sentence: more if it is repeated, less if many sentences have it."""
    spread = Counter(term for sentence in sentences for term in sentence)
    rarity = {term: math.log(1 + len(sentences) / count) for term, count in spread.items()}
    return [{term: (1 + math.log(count)) * rarity[term] for term, count in sentence.items()} for sentence in sentences]


def centrality(vectors: Sequence[Mapping[str, float]], priors: Sequence[float], tick: Tick) -> list[float]:
    """A score from 0 to 1 for each sentence, the best has 1: how much it shares with sentences that themselves score high.

    Continuous LexRank (Erkan and Radev 2004, https://arxiv.org/abs/1109.2128, section 3.3), a PageRank over the cosines
    of all pairs of sentences, biased by `priors` (at least 0, in any unit) as in Otterbacher, Erkan and Radev (2005),
    https://aclanthology.org/H05-1115/. The graph is never built. A sum over all cosines of a sentence is one product
    with the sum of all vectors, so a round takes time in proportion to the text, not to its square.
    """
    total = sum(priors)
    bias = [prior / total for prior in priors] if total > 0 else [1 / len(priors)] * len(priors)
    units = [_unit(vector) for vector in vectors]
    # A sentence is no evidence for itself: its cosine with itself is left out everywhere.
    own = [1.0 if unit else 0.0 for unit in units]
    ones = [1.0] * len(units)
    degrees = [degree if degree > 1e-9 else 0.0 for degree in _products(units, own, ones)]
    # What has no neighbour keeps its score to itself. PageRank deals it out by `bias`, which raises all in the same
    # proportion: it would not be seen where the best has 1.
    scores = bias
    for _ in range(ROUNDS):
        tick()
        shares = [score / degree if degree else 0.0 for score, degree in zip(scores, degrees, strict=True)]
        received = _products(units, own, shares)
        before, scores = scores, [
            DAMPING * gain + (1 - DAMPING) * start for gain, start in zip(received, bias, strict=True)
        ]
        if sum(abs(new - old) for new, old in zip(scores, before, strict=True)) < SETTLED:
            break
    best = max(scores)
    return [score / best for score in scores]


def _unit(vector: Mapping[str, float]) -> dict[str, float]:
    length = math.sqrt(sum(weight * weight for weight in vector.values()))
    return {term: weight / length for term, weight in vector.items()}


def _products(units: Sequence[Mapping[str, float]], own: Sequence[float], amounts: Sequence[float]) -> list[float]:
    """For each sentence the sum of its cosines with the others, each times the other's amount."""
    pooled: dict[str, float] = {}
    for unit, amount in zip(units, amounts, strict=True):
        if amount:
            for term, weight in unit.items():
                pooled[term] = pooled.get(term, 0.0) + weight * amount
    return [
        sum(weight * pooled.get(term, 0.0) for term, weight in unit.items()) - itself * amount
        for unit, itself, amount in zip(units, own, amounts, strict=True)
    ]


def choose(scores: Sequence[float], vectors: Sequence[Mapping[str, float]], count: int, tick: Tick) -> list[int]:
    """The indexes, ascending, of up to `count` sentences that score high and say different things.

    One by one, the best of what is left, where a sentence loses score with the square of the share of its weight that
    the chosen ones cover: maximal marginal relevance (Carbonell and Goldstein 1998) with the coverage of Lin and
    Bilmes (2011), https://aclanthology.org/P11-1052/. Such a value never rises, so one that is still the best after it
    was brought up to date is the best of all, and the others need no look (Minoux 1978). Ties go to the earlier one.
    """
    covered: set[str] = set()
    chosen: list[int] = []
    # Value negated, index, and how many were chosen when the value was computed.
    queue = [(-score, index, 0) for index, score in enumerate(scores)]
    heapq.heapify(queue)
    looks = 0
    while queue and len(chosen) < count:
        looks += 1
        if looks % TICK_SENTENCES == 0:
            tick()
        _, index, known = queue[0]
        if known == len(chosen):
            heapq.heappop(queue)
            chosen.append(index)
            covered.update(vectors[index])
        else:
            value = scores[index] * (1 - _redundancy(vectors[index], covered) ** REDUNDANCY_POWER)
            heapq.heapreplace(queue, (-value, index, len(chosen)))
    return sorted(chosen)


def _redundancy(vector: Mapping[str, float], covered: set[str]) -> float:
    whole = sum(vector.values())
    return sum(weight for term, weight in vector.items() if term in covered) / whole if whole else 1.0
