from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.workers.text.contacts import emails, ips, phones, urls
from app.workers.text.dates import dates
from app.workers.text.entities import MOST_OF_A_KIND, find
from app.workers.text.entity import Entity
from app.workers.text.language import detect
from app.workers.text.money import money


def found(finder: Callable[[str], Iterator[Entity]], text: str) -> dict[str, Any]:
    return {text[entity.start : entity.end]: entity.value for entity in finder(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to Info@Example.COM.", {"Info@Example.COM": "Info@example.com"}),
        ("<a.b+c@sub.example.co.uk>", {"a.b+c@sub.example.co.uk": "a.b+c@sub.example.co.uk"}),
        ("...john@x.org", {"john@x.org": "john@x.org"}),
        ("müller@straße.de", {"müller@straße.de": "müller@straße.de"}),
        ("联系me@x.com。", {"me@x.com": "me@x.com"}),
        ("a@b a@b.c1 @x.com x@y.com_z a@-b.de", {}),
        ("x" * 65 + "@example.com", {}),
    ],
)
def test_emails(text: str, expected: dict[str, str]) -> None:
    assert found(emails, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(see http://a.org/b_(c)).", {"http://a.org/b_(c)": "http://a.org/b_(c)"}),
        ("www.Example.com/Path!", {"www.Example.com/Path": "http://www.example.com/Path"}),
        (
            "HTTPS://User@EXAMPLE.com:8443?q=A",
            {"HTTPS://User@EXAMPLE.com:8443?q=A": "https://User@example.com:8443?q=A"},
        ),
        ("“ftp://x.y/z”", {"ftp://x.y/z": "ftp://x.y/z"}),
        ("http://[0:0::1]:80/", {"http://[0:0::1]:80/": "http://[::1]:80/"}),
        ("http:// http://-a.de http://a.de:99999/ http://[x]/ me@www.x.de www.", {}),
    ],
)
def test_urls(text: str, expected: dict[str, str]) -> None:
    assert found(urls, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on 2024-02-29T10:00", {"2024-02-29": "2024-02-29"}),
        ("5.3.2024, 1. 2. 2024.", {"5.3.2024": "2024-03-05", "1. 2. 2024": "2024-02-01"}),
        ("03/04/2024", {"03/04/2024": None}),
        ("13/04/2024 04/13/2024", {"13/04/2024": "2024-04-13", "04/13/2024": "2024-04-13"}),
        ("5/5/2024", {"5/5/2024": "2024-05-05"}),
        ("March 5, 2024", {"March 5, 2024": "2024-03-05"}),
        ("5th of March 2024 and 1 Sept. 2023", {"5th of March 2024": "2024-03-05", "1 Sept. 2023": "2023-09-01"}),
        ("am 5. März 2024", {"5. März 2024": "2024-03-05"}),
        ("1. Jänner 2025, 24. Dez. 2025", {"1. Jänner 2025": "2025-01-01", "24. Dez. 2025": "2025-12-24"}),
        ("2023-02-29 31.04.2024 30 February 2024 2024-13-01 32/13/2024", {}),
        ("v1.2.2024.5 192.168.2024 may 2024 12024-01-01", {}),
    ],
)
def test_dates_are_checked_by_the_calendar(text: str, expected: dict[str, str | None]) -> None:
    assert found(dates, text) == expected


@pytest.mark.parametrize(
    ("language", "text", "amount", "currency"),
    [
        (None, "$5", "5", "$"),
        (None, "US$ 7", "7", "USD"),
        (None, "1.234,50 €", "1234.50", "EUR"),
        (None, "€1,234.50", "1234.50", "EUR"),
        (None, "5EUR", "5", "EUR"),
        (None, "CHF 1'000.05", "1000.05", "CHF"),
        (None, "-5 EUR", "-5", "EUR"),
        (None, "5 dollars", "5", "$"),
        (None, "1.859 €", "1859", "EUR"),
        ("en", "€1.859", "1.859", "EUR"),
        ("de", "1,859 Euro", "1.859", "EUR"),
        (None, "$1.5 million", "1500000", "$"),
        (None, "3 Mrd. Euro", "3000000000", "EUR"),
        (None, "2 billion dollars", None, "$"),
        ("en", "2 billion dollars", "2000000000", "$"),
        ("de", "2 Billion Euro", "2000000000000", "EUR"),
        (None, "$1.234 million", None, "$"),
    ],
)
def test_money(language: str | None, text: str, amount: str | None, currency: str) -> None:
    assert found(lambda text: money(text, language), text) == {text: {"amount": amount, "currency": currency}}


@pytest.mark.parametrize("text", ["5", "EUR", "2024 EUROPE", "$", "A$AP", "1.2.3 €"])
def test_a_number_or_a_currency_alone_is_no_money(text: str) -> None:
    assert found(money, text) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+49 (0) 30 123456", {"+49 (0) 30 123456": "+4930123456"}),
        ("+44 20 7946 0958.", {"+44 20 7946 0958": "+442079460958"}),
        ("(555) 234-5678 or 555.234.5678", {"(555) 234-5678": None, "555.234.5678": None}),
        ("030 123456, 1234567890, 2024-01-02 12:30, +1234567890123456, 10.0.0.1", {}),
    ],
)
def test_phones(text: str, expected: dict[str, str | None]) -> None:
    assert found(phones, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at 10.0.0.1.", {"10.0.0.1": "10.0.0.1"}),
        ("[2001:DB8:0:0::1]:80", {"2001:DB8:0:0::1": "2001:db8::1"}),
        ("::ffff:1.2.3.4", {"::ffff:1.2.3.4": "::ffff:1.2.3.4"}),
        ("256.1.1.1 1.2.3.4.5 01.2.3.4 v1.2.3.4 12:30:45 std::vector dead::beef ::", {}),
    ],
)
def test_ips(text: str, expected: dict[str, str]) -> None:
    assert found(ips, text) == expected


def test_offsets_are_code_points_and_slice_the_text() -> None:
    text = "🙂 Mail a@b.de, see http://c.de, on 2024-05-06 for 5 €, call +49 30 123456, ping 10.0.0.1. Again a@b.de"
    result = find(text, detect(text))
    kinds = ("emails", "urls", "dates", "money", "phones", "ips")
    assert [len(result[kind]) for kind in kinds] == [2, 1, 1, 1, 1, 1]
    assert all(text[one["start"] : one["end"]] == one["text"] for kind in kinds for one in result[kind])
    assert result["emails"][0]["start"] == 7


@pytest.mark.parametrize(("count", "truncated"), [(MOST_OF_A_KIND, []), (MOST_OF_A_KIND + 1, ["emails"])])
def test_a_kind_is_cut_after_500_and_says_so(count: int, truncated: list[str]) -> None:
    result = find("a@b.de " * count, detect("a"))
    assert len(result["emails"]) == MOST_OF_A_KIND
    assert result["truncated"] == truncated
