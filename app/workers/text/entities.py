"""Lists the e-mail addresses, URLs, dates, amounts of money, phone numbers and IP addresses of a text."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from app.workers.text import contacts, dates, money
from app.workers.text.entity import Entity
from app.workers.text.language import Detection

METHOD = "patterns and checks, for any language; month names in English and German"
MOST_OF_A_KIND = 500


def find(text: str, detection: Detection) -> dict[str, Any]:
    """Every occurrence by kind, in order, at most 500 of a kind; `truncated` names the kinds that have more.

    Each is `{"text", "start", "end", "value"}`, where `text[start:end]` is the text. Kinds may overlap: a URL can hold an
    IP address. Values: lower-case domain, ISO date, `{"amount": "1234.50", "currency": "EUR"}`, E.164 number. A value is
    None if the text does not settle it: "03/04/2024" may be in March or in April, a phone number may lack its country.
    """
    finders: dict[str, Callable[[str], Iterator[Entity]]] = {
        "emails": contacts.emails,
        "urls": contacts.urls,
        "dates": dates.dates,
        "money": lambda text: money.money(text, detection.language),
        "phones": contacts.phones,
        "ips": contacts.ips,
    }
    found = {kind: list(islice(finder(text), MOST_OF_A_KIND + 1)) for kind, finder in finders.items()}
    listed = {kind: [_as_json(text, one) for one in some[:MOST_OF_A_KIND]] for kind, some in found.items()}
    truncated = [kind for kind, some in found.items() if len(some) > MOST_OF_A_KIND]
    return {**detection.stated, "method": METHOD, **listed, "truncated": truncated}


def _as_json(text: str, entity: Entity) -> dict[str, Any]:
    return {"text": text[entity.start : entity.end], "start": entity.start, "end": entity.end, "value": entity.value}
