"""The words and phrases a text is about."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from app.workers.text import units
from app.workers.text.language import Detection
from app.workers.text.stop_words import STOP_WORDS

RAKE = "RAKE (Rose et al. 2010), phrases of up to 4 words, score times count"
FREQUENCY = "word frequency (there is no stop word list for this language)"
LONGEST_PHRASE = 4
# Without a stop word list, length is all that tells "the" from "weather".
SHORTEST_FREQUENT = 4
GAP_INSIDE_PHRASE = re.compile(r"[ \t\u00a0\r]*+\n?[ \t\u00a0]*+")
ELISION = re.compile(r"^(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|(?:d|n|s)?ell|all|un|sull)'")
ELIDING = frozenset({"fr", "it"})


def extract(text: str, detection: Detection, limit: int) -> dict[str, Any]:
    """The `limit` best keywords, lower case, best first, each with its score and how often it occurs.

    With a stop word list for the language the method is RAKE; without one it is the frequency of longer words, and the
    result says so. Scripts written without spaces are refused, since their words cannot be told apart by rules.
    """
    words = units.words(text)
    if sum(units.ANY_UNSPACED.match(word) is not None for word in words) * 2 > len(words):
        reason = "the text is in a script written without spaces, which needs a dictionary to find its words"
        return {"supported": False, **detection.stated, "reason": reason}
    stop_words = STOP_WORDS.get(detection.working or "")
    scored = _frequent(words) if stop_words is None else _rake(list(_runs(text, detection.working, stop_words)))
    best = sorted(scored, key=lambda item: (-item[1], item[0]))[:limit]
    items = [{"keyword": keyword, "score": round(score, 3), "count": count} for keyword, score, count in best]
    return {**detection.stated, "method": FREQUENCY if stop_words is None else RAKE, "items": items}


def _frequent(words: list[str]) -> list[tuple[str, float, int]]:
    folded = (units.fold(word) for word in words)
    counts = Counter(word for word in folded if len(word) >= SHORTEST_FREQUENT and not word.isdigit())
    return [(word, float(count), count) for word, count in counts.items()]


def _runs(text: str, language: str | None, stop_words: frozenset[str]) -> Iterator[list[str]]:
    """The runs of words between stop words, numbers and punctuation. An over-long run is no phrase: it gives its words."""
    run: list[str] = []
    end = 0
    for match in units.WORD.finditer(text):
        if GAP_INSIDE_PHRASE.fullmatch(text, end, match.start()) is None:
            yield from _phrases(run)
            run = []
        end = match.end()
        word = units.fold(match[0])
        elision = ELISION.match(word) if language in ELIDING else None
        if elision is not None:
            yield from _phrases(run)
            run, word = [], word[elision.end() :]
        if word in stop_words or not any(map(str.isalpha, word)) or len(word) == 1:
            yield from _phrases(run)
            run = []
        else:
            run.append(word)
    yield from _phrases(run)


def _phrases(run: list[str]) -> list[list[str]]:
    if len(run) > LONGEST_PHRASE:
        return [[word] for word in run]
    return [run] if run else []


def _rake(phrases: list[list[str]]) -> list[tuple[str, float, int]]:
    """Each word scores degree / frequency, a phrase the sum of its words, times how often it occurs.

    RAKE itself leaves the count out, and so prefers a long phrase said once to the word a text keeps coming back to.
    """
    frequency: Counter[str] = Counter()
    degree: Counter[str] = Counter()
    for phrase in phrases:
        for word in phrase:
            frequency[word] += 1
            degree[word] += len(phrase)
    counts = Counter(map(tuple, phrases))
    return [
        (" ".join(phrase), count * sum(degree[word] / frequency[word] for word in phrase), count)
        for phrase, count in counts.items()
    ]
