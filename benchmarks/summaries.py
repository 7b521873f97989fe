"""The local summariser against lead-3, the first three sentences, by ROUGE on the texts of benchmarks/texts.

    python benchmarks/summaries.py            the comparison, a few seconds
    python benchmarks/summaries.py --texts    also each text's figures

Lead is the baseline that summarisers of news have often failed to beat: Nenkova (2005), "Automatic Text Summarization of
Newswire: Lessons Learned from the Document Understanding Conference", AAAI. Here it gets the same sentences to take from,
headings and salutations left out, and as many of them. The texts and their reference summaries were written for this
benchmark, the references before the summariser had seen a text. The numbers in app/workers/summary were settled on the
tuning half alone; the held-out half says what they are worth. Its figures had been seen once before the last change
(REDUNDANCY_POWER), which lowered them slightly. One author wrote texts, references and summariser, and the texts are few.
"""

import argparse
import random
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from app.workers.summary.extract import summarize
from app.workers.summary.sentences import split
from benchmarks.rouge import Rouge, rouge

TEXTS = Path(__file__).parent / "texts"
SENTENCES = 3
RESAMPLES = 10_000
SEED = 2004
MEASURES: dict[str, Callable[[Rouge], float]] = {
    "ROUGE-1": lambda scores: scores.one,
    "ROUGE-2": lambda scores: scores.two,
    "ROUGE-L": lambda scores: scores.longest,
}


@dataclass(frozen=True)
class Text:
    """One file of benchmarks/texts; `half` is "tuning" or "held-out"."""

    name: str
    language: str
    genre: str
    half: str
    title: str
    source: str
    text: str
    summary: str


@dataclass(frozen=True)
class Comparison:
    """How well our summary and lead's fit the reference of one text."""

    text: Text
    ours: Rouge
    lead: Rouge


def load_texts() -> list[Text]:
    """All texts by name."""
    return [Text(path.stem, **tomllib.loads(path.read_text())) for path in sorted(TEXTS.glob("*.toml"))]


def compare(text: Text) -> Comparison:
    """Summarise one text both ways."""
    ours = summarize(text.text, SENTENCES, None, lambda percent, message: None)["summary"]
    sentences = [one.text for one in split(text.text, text.language) if not one.is_heading]
    return Comparison(text, rouge(ours, text.summary), rouge(" ".join(sentences[:SENTENCES]), text.summary))


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of their mean by a paired bootstrap: Koehn (2004), https://aclanthology.org/W04-3250/."""
    chance = random.Random(SEED)
    means = sorted(fmean(chance.choices(differences, k=len(differences))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def show(compared: Sequence[Comparison]) -> Table:
    """A row for each measure of each language, of news and the rest, of each half and of all."""
    table = Table("texts", "n", "measure", "ours", "lead-3", "difference", "95 % interval", "won", "even")
    groups = [(code, [one for one in compared if one.text.language == code]) for code in ("en", "de", "fr", "es")]
    groups += [("news", [one for one in compared if one.text.genre == "news"])]
    groups += [("no news", [one for one in compared if one.text.genre != "news"])]
    groups += [(half, [one for one in compared if one.text.half == half]) for half in ("tuning", "held-out")]
    for name, group in [*groups, ("all", list(compared))]:
        for measure, value in MEASURES.items():
            ours, lead = [value(one.ours) for one in group], [value(one.lead) for one in group]
            differences = [here - there for here, there in zip(ours, lead, strict=True)]
            low, high = interval(differences)
            won = sum(one > 0 for one in differences) / len(group)
            even = sum(one == 0 for one in differences) / len(group)
            figures = f"{fmean(ours):.3f}", f"{fmean(lead):.3f}", f"{fmean(differences):+.3f}"
            table.add_row(
                name, str(len(group)), measure, *figures, f"{low:+.3f} {high:+.3f}", f"{won:.0%}", f"{even:.0%}"
            )
        table.add_section()
    return table


def show_texts(compared: Sequence[Comparison]) -> Table:
    """A row for each text."""
    table = Table("text", "genre", "half", *(f"{name} ours / lead-3" for name in MEASURES))
    for one in compared:
        figures = (f"{value(one.ours):.3f} / {value(one.lead):.3f}" for value in MEASURES.values())
        table.add_row(one.text.name, one.text.genre, one.text.half, *figures)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="The local summariser against lead-3, by ROUGE.")
    parser.add_argument("--texts", action="store_true", help="also show each text")
    options = parser.parse_args()
    compared = [compare(text) for text in load_texts()]
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.texts:
        console.print(show_texts(compared))
    console.print(show(compared))


if __name__ == "__main__":
    main()
