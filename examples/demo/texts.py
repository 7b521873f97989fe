"""What the demos send: letters, articles to be summarised, and a guest book. All of it is invented."""

import itertools
import json
from collections.abc import Iterator

LETTER = (
    "Dear Ada, I loved the little railway museum! The staff was friendly and the steam engine is wonderful. "
    "Tickets were $12, and the next tour starts on 3 May 2027. Write to tours@museum.example for a place."
)

LETTERS = (
    "The night train to the coast was almost empty, so we had the dining car to ourselves. I loved every mile of it.",
    "My new kettle broke after two days and the shop refused to help. A terrible buy: $39 for a heap of sad plastic.",
    "Send the signed lease to office@harbour.example before 14 June 2027 and bring the first rent, $950, in person. "
    "We are happy to have you; the rest is at https://harbour.example.",
    "Der Bäcker an der Ecke öffnet um sechs Uhr, und schon vor sieben riecht die ganze Straße nach frischem Brot.",
    "Am 3. Mai 2027 zieht das Archiv um. Bis dahin bleiben die Kisten im Keller, und niemand darf sie öffnen.",
    "La vieille horloge de la gare avance de deux minutes, mais personne dans le village ne voudrait la corriger.",
    "El faro lleva cien años en la misma roca y cada noche cuenta a los barcos dónde termina el mar.",
    "Il mercato del pesce apre all'alba: chi arriva tardi trova soltanto ghiaccio, gatti e buone scuse.",
    "A biblioteca da ilha empresta livros, ferramentas e, quando chove muito, também guarda-chuvas coloridos.",
    "De brug gaat elke ochtend open voor een enkele boot, en alle fietsers wachten geduldig in de wind.",
    "Старый трамвай медленно поднимается на холм, и перед пассажирами открывается весь город до самой реки.",
    "Kun järvi jäätyy, koulun oppilaat hiihtävät sen yli ja säästävät puoli tuntia joka aamu.",
    "春になると、川沿いの桜が一斉に咲き、町の人たちは弁当を持って散歩に出かけます。",
)

ARTICLES = (
    "The harbour of Skerrow has a new ferry, and it runs on batteries alone. The ship carries 120 people and 30 cars and "
    "crosses the sound in 25 minutes. At each end a mast fills its batteries while the cars drive on and off. In the first "
    "month it burned no fuel where the old ferry burned 90,000 litres. Fishermen like that they hear it less; one of them "
    "likes it so little that he nearly ran into it. The town paid 14 million and expects to have saved as much in eleven "
    "years. Trips in a gale are still made by the old ferry, because the new one has to keep a third of its charge. A "
    "second battery ferry is ordered for the line to the northern islands. The crew has painted its name, Kittiwake, by hand.",
    "A class of twelve-year-olds has counted the swifts of their town for a year. Every evening from May to August two of "
    "them sat on the roof of the school with a notebook. They found 61 nests, twice as many as the town had on its list. "
    "Most of the nests are in old walls that are to be insulated next year. The pupils wrote to the council, and the "
    "council asked them to come. Since then no wall is closed before somebody has looked for nests. Builders hang a wooden "
    "box for each hole they fill. A biologist of the university checked a part of the counts and found them right. The "
    "notebook is in the town's museum now, with a coffee stain on the page of 9 June.",
    "The library of Brannock lends more tools than novels. It began with a drill that a reader had left behind. Today 340 "
    "tools stand on the shelves between travel and history, from ladders to a cider press. Whoever borrows a saw is shown "
    "how to use it. The librarian says that most things are used for an hour a year, so one for a whole street is enough. "
    "Repairs are done on Thursdays by three retired mechanics, who are paid in coffee. Last year 2,900 loans were made and "
    "four tools did not come back. Other towns have asked for the rules; they fit on one page. The drill is still there "
    "and is borrowed every week.",
    "Im Moor bei Lüttwick steigt das Wasser wieder. Vor hundert Jahren wurde es entwässert, um Torf zu stechen und Wiesen zu "
    "gewinnen. Seit zwei Jahren schließen Freiwillige die alten Gräben mit Holz und Torf. Der Wasserstand ist seitdem um "
    "vierzig Zentimeter gestiegen. Im Frühling brüteten zum ersten Mal wieder Kraniche. Die Bauern am Rand waren zuerst "
    "dagegen, weil sie um ihre Keller fürchteten. Ein Damm hält das Wasser nun dort, wo es bleiben soll. Nasse Moore halten "
    "mehr Kohlenstoff fest als jeder Wald gleicher Größe. Im nächsten Jahr sollen die letzten drei Gräben geschlossen werden.",
)

_OPENINGS = (
    "We came on a rainy Monday with two children.",
    "My first visit in ten years!",
    "I was here with my choir.",
    "After a long walk along the cliffs we arrived at 17:30.",
    "Our train was late, so we saw only half of it.",
    "A birthday present from my daughter.",
    "Nobody had told us about the 199 steps.",
    "We stayed for three nights.",
)
_SUBJECTS = ("The lighthouse", "The little museum", "The tea room", "The boat trip", "The guide", "The view at dusk")
_VERDICTS = (
    "is wonderful, and everybody was so friendly.",
    "was a great joy for young and old.",
    "was fine.",
    "is smaller than it looks in the pictures.",
    "was a sad disappointment, dirty and far too loud.",
    "is awful; we want our $14 back.",
    "made us laugh, and we hope to come again soon.",
)
_CLOSINGS = (
    "Thank you for the perfect day!",
    "Please repair the broken bench.",
    "Write to me at mara@post.example if you find a green umbrella.",
    "See you on 12 August 2027.",
    "Sadly the soup was cold.",
    "The cat is the best of all.",
    "Greetings from the far north.",
    "Never again.",
    "Sun, wind and good cake, what else do you need?",
)
OPERATIONS = ["statistics", "language", "sentiment", "keywords", "readability", "entities"]


def guest_book(count: int) -> list[str]:
    """`count` entries of a guest book; the first 3,024 are all different."""
    return [" ".join(words) for words in itertools.islice(_entries(), count)]


def guest_book_file(count: int) -> bytes:
    """A guest book as `batch_processing` reads it from a file: JSON Lines, each the payload of a text_processing task."""
    lines = ({"text": text, "operations": OPERATIONS} for text in guest_book(count))
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _entries() -> Iterator[tuple[str, str, str, str]]:
    phrases = list(itertools.product(_OPENINGS, _SUBJECTS, _VERDICTS, _CLOSINGS))
    # 1,013 is prime: a stride that visits each once and mixes good and bad.
    return (phrases[place * 1013 % len(phrases)] for place in itertools.count())
