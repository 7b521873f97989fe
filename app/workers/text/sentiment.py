"""How positive or negative an English text sounds. Other languages are refused: VADER's lexicon would score them 0."""

from functools import cache
from importlib.metadata import version
from math import ceil
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from app.workers.text import units
from app.workers.text.language import Detection

# VADER is quadratic in a sentence's words and, worse, emoji (26 s for 8,000), so long sentences are cut, and of long texts
# an even sample is scored.
LONGEST_PIECE_WORDS = 40
MOST_PIECES = 400
# The bounds its authors give: https://github.com/cjhutto/vaderSentiment#about-the-scoring
POSITIVE_FROM = 0.05


def score(text: str, detection: Detection) -> dict[str, Any]:
    """VADER's scores, averaged over the sentences, as its authors advise for texts of more than one.

    `compound` runs from -1 to 1; `positive`, `negative` and `neutral` are shares of the text. `pieces` says how many
    sentences (cut after 40 words) there are and `scored_pieces` how many of them, evenly spaced, were scored: at most 400.
    """
    if detection.working != "en" or not units.has_word(text):
        return {"supported": False, **detection.stated, "reason": _refusal(detection)}
    pieces = [piece for sentence in units.sentences(text, "en") for piece in _cut(sentence)]
    sample = pieces[:: ceil(len(pieces) / MOST_PIECES)]
    scores = [_analyzer().polarity_scores(piece) for piece in sample]
    mean = {key: round(sum(one[key] for one in scores) / len(scores), 4) for key in ("compound", "pos", "neg", "neu")}
    return {
        **detection.stated,
        "model": f"vaderSentiment {version('vaderSentiment')}",
        "compound": mean["compound"],
        "positive": mean["pos"],
        "negative": mean["neg"],
        "neutral": mean["neu"],
        "label": _label(mean["compound"]),
        "pieces": len(pieces),
        "scored_pieces": len(sample),
    }


def _refusal(detection: Detection) -> str:
    if detection.language is None:
        return f"the language is undecided ({detection.reason}), and the lexicon is English only"
    return "the lexicon is English only"


def _label(compound: float) -> str:
    if compound >= POSITIVE_FROM:
        return "positive"
    return "negative" if compound <= -POSITIVE_FROM else "neutral"


def _cut(sentence: str) -> list[str]:
    names = _analyzer().emojis
    # VADER reads an emoji as its English name; done here, so that the names count for the length.
    spelled = "".join(f" {names[character]} " if character in names else character for character in sentence)
    tokens = spelled.split()
    return [
        " ".join(tokens[start : start + LONGEST_PIECE_WORDS]) for start in range(0, len(tokens), LONGEST_PIECE_WORDS)
    ]


@cache
def _analyzer() -> Any:
    return SentimentIntensityAnalyzer()
