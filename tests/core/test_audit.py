"""What is kept of a deed is small, and holds no secret."""

import json

import pytest

from app.core.audit import LONGEST_JSON, LONGEST_TEXT, MOST_MEMBERS, difference, shown
from app.core.secrets import REDACTED


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"priority": 5, "tags": ("a", "b")}, {"priority": 5, "tags": ["a", "b"]}),
        ({"password": "x"}, {"password": REDACTED}),
        ({"metadata": {"db_password": "x", "Api-Key": "y", "apikey": "z"}}, None),
        ({"metadata": {"a": [{"auth_token": {"deep": "x"}}]}}, {"metadata": {"a": [{"auth_token": REDACTED}]}}),
        ({"secret": None, "token": "", "tokens": 5}, {"secret": None, "token": "", "tokens": 5}),
        ({"note": "call with Bearer abcdef123456"}, {"note": f"call with Bearer {REDACTED}"}),
        ({"note": "x" * 1000}, {"note": "x" * LONGEST_TEXT + "..."}),
        ({"ids": tuple(range(1000))}, {"ids": list(range(MOST_MEMBERS))}),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, {"a": {"b": {"c": {"d": "..."}}}}),
        ({}, {}),
    ],
)
def test_what_is_kept(given: dict[str, object], kept: dict[str, object] | None) -> None:
    text = shown(given)
    assert text is not None
    if kept is None:
        assert [name for name in ('"x"', '"z"') if name in text] == []
    else:
        assert json.loads(text) == kept


def test_nothing_stays_nothing() -> None:
    assert shown(None) is None


def test_whatever_comes_in_is_bounded() -> None:
    text = shown({str(one): {str(two): "x" * 500 for two in range(100)} for one in range(100)})
    assert text is not None
    assert len(text) <= LONGEST_JSON


def test_a_difference_has_both_sides() -> None:
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ({"b": 2, "c": None}, {"b": 3, "c": 4})
