"""Makes a summary out of a text's own sentences, in any language, without a model to load."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.workers.summary import rank
from app.workers.summary.sentences import Sentence, split
from app.workers.summary.terms import terms
from app.workers.text import language, units
from app.workers.text.stop_words import STOP_WORDS

MODEL = "lexrank-position/1"
"""Names the method in results; the number rises when the same text would get another summary."""
MOST_SENTENCES = 500
"""What a `ratio` can give at most: a text of very short sentences would otherwise outgrow the limit of a result."""
FULL_LENGTH = 10
"""A sentence with fewer terms than this counts less, in proportion. That very short ones are seldom in a summary is one of
the features of Kupiec, Pedersen and Chen (1995), "A trainable document summarizer", SIGIR."""
FIRST, OPENS, LAST = 1.0, 0.5, 0.5
"""What a place adds to a sentence's prior of 1: the beginning of the text (falling with 1 / position), of a paragraph, and
the last paragraph. That these hold a text's topic is Baxendale's finding (1958, "Machine-made index for technical
literature": 85 of 100 paragraphs have it first, 7 last) and Edmundson's (1969, "New methods in automatic extracting")."""
LINE_BREAK = re.compile(r"(?<!\s)\s*[\r\n\x85\u2028\u2029]\s*")
UNSPACED_END = re.compile("[\u3002\uff01\uff1f\u300d\u300f\u3011\uff09]$")

Report = Callable[[float, str], None]
"""Told how far the work is, in percent. May raise, which ends it."""


@dataclass(frozen=True)
class Chosen:
    """A sentence of the summary; `position` counts the text's sentences from 0, `score` is 1 for the text's best."""

    sentence: Sentence
    score: float
    position: int


def summarize(text: str, count: int, ratio: float | None, report: Report) -> dict[str, Any]:
    """The sentences of `text` that say most, word for word and in its order: up to `count` of them, or where there is a
    `ratio` that share of all (at least one, at most 500).

    Fewer where the text has fewer; one that is said twice counts once. Headings are not summarised, nor is text without
    words: then there are no sentences, and a `reason`. `stop_words` is False where there is no list for the language, and
    sentences are compared by all longer words. Takes time in proportion to the text.
    """
    report(0, "finding the sentences")
    detection = language.detect(text)
    working = detection.working
    sentences = [one for one in split(text, working or "en") if not one.is_heading]
    if ratio is not None:
        # 0.29 * 100 is 28.999999999999996.
        count = min(MOST_SENTENCES, max(1, int(ratio * len(sentences) + 1e-9)))
    chosen = _choose(sentences, working, count, report)
    summary = _joined([one.sentence.text for one in chosen])
    return {
        "summary": summary,
        "sentences": [_as_json(one) for one in chosen],
        **detection.stated,
        "stop_words": working in STOP_WORDS,
        "provider": "local",
        "model": MODEL,
        "sentence_count": len(sentences),
        "compression": round(len(summary) / max(1, len(text)), 4),
        **({} if sentences else {"reason": "the text has no words"}),
    }


def _choose(sentences: Sequence[Sentence], working: str | None, count: int, report: Report) -> list[Chosen]:
    if not sentences:
        return []
    positions = _without_repeats(sentences)
    found: list[Counter[str]] = []
    for done, position in enumerate(positions):
        if done % rank.TICK_SENTENCES == 0:
            report(round(20 + 40 * done / len(positions), 1), "comparing the sentences")
        found.append(terms(sentences[position].text, working))
    vectors = rank.weights(found)
    last = sentences[-1].paragraph
    priors = [_prior(sentences[at], at, last, one.total()) for at, one in zip(positions, found, strict=True)]
    scores = rank.centrality(vectors, priors, lambda: report(60, "ranking the sentences"))
    indexes = rank.choose(scores, vectors, count, lambda: report(90, "choosing the sentences"))
    return [Chosen(sentences[positions[index]], scores[index], positions[index]) for index in indexes]


def _without_repeats(sentences: Sequence[Sentence]) -> list[int]:
    """The positions of the sentences whose words were not said before, in the same order."""
    first: dict[str, int] = {}
    for position, sentence in enumerate(sentences):
        first.setdefault(" ".join(map(units.fold, units.words(sentence.text))), position)
    return list(first.values())


def _prior(sentence: Sentence, position: int, last_paragraph: int, term_count: int) -> float:
    place = 1 + FIRST / (1 + position) + OPENS * sentence.opens + LAST * (sentence.paragraph == last_paragraph)
    return place * min(1.0, term_count / FULL_LENGTH)


def _joined(sentences: Sequence[str]) -> str:
    """One paragraph; where Chinese or Japanese ends a sentence, no space follows."""
    summary = ""
    for sentence in sentences:
        gap = " " if summary and UNSPACED_END.search(summary) is None else ""
        summary += gap + LINE_BREAK.sub(" ", sentence)
    return summary


def _as_json(chosen: Chosen) -> dict[str, Any]:
    sentence = chosen.sentence
    place = {"position": chosen.position, "start": sentence.start, "end": sentence.end}
    return {"text": sentence.text, "score": round(chosen.score, 4), **place}
