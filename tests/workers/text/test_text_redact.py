from collections.abc import Sequence

import pytest

from app.workers.text.language import Detection
from app.workers.text.redact import FINDERS, redact

UNKNOWN = Detection(None, ())


def redacted(text: str, categories: Sequence[str] = tuple(FINDERS)) -> str:
    return str(redact(text, UNKNOWN, categories)["text"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail a@b.de or c@d.de.", "Mail [EMAIL] or [EMAIL]."),
        ("Call +49 30 123456!", "Call [PHONE]!"),
        ("from 10.0.0.1 and fe80::1", "from [IP] and [IP]"),
        ("see https://example.com/x.", "see [URL]."),
        ("DE89 3704 0044 0532 0130 00 IST meine", "[IBAN] IST meine"),
        ("gb29nwbk60161331926819,", "[IBAN],"),
        ("AM10 NO9386011117947", "AM10 [IBAN]"),
        ("4111 1111 1111 1111", "[CREDIT_CARD]"),
        ("378282246310005 5555-5555-5555-4444", "[CREDIT_CARD] [CREDIT_CARD]"),
        ("3782 822463 10005 exp 12/29", "[CREDIT_CARD] exp 12/29"),
        ("2024 4111-1111-1111-1111 123", "2024 [CREDIT_CARD] 123"),
        ("nothing here", "nothing here"),
    ],
)
def test_what_has_a_form_is_replaced(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "DE88 3704 0044 0532 0130 00",
        "DE89 3704 0044 0532 0130 0",
        "DE89370400440532013000X",
        "XX89370400440532013000",
        "4111 1111 1111 1112",
        "9111 1111 1111 1110",
        "41111111111111111111",
    ],
)
def test_wrong_check_digits_lengths_and_prefixes_are_left_alone(text: str) -> None:
    assert redacted(text, ["iban", "credit_card"]) == text


def test_only_the_categories_asked_for_are_replaced_and_counted() -> None:
    result = redact("a@b.de 10.0.0.1 c@d.de", UNKNOWN, ["email", "phone"])
    assert result["text"] == "[EMAIL] 10.0.0.1 [EMAIL]"
    assert result["counts"] == {"email": 2, "phone": 0}


def test_overlapping_finds_leave_nothing_behind() -> None:
    result = redact("http://10.0.0.1/?mail=a@b.de&x=1 end", UNKNOWN, ["email", "ip", "url"])
    assert result["text"] == "[URL] end"
    assert result["counts"] == {"email": 0, "ip": 0, "url": 1}


def test_there_is_no_limit_to_what_is_replaced() -> None:
    assert redact("a@b.de " * 2_000, UNKNOWN, ["email"])["counts"] == {"email": 2_000}
