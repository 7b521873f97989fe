import pytest

from app.core.fingerprint import essence, fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 not found", "order 18 not found"),
        ("user 5f0c9a2e-7b1d-4c1e-9d3f-0a1b2c3d4e5f is gone", "user 00000000-7b1d-4c1e-9d3f-0a1b2c3d4e5f is gone"),
        ("blob deadbeef01 missing", "blob 0123456789abcdef missing"),
        ("took 3.25 s", "took 11.75 s"),
        ("at 0x7f00aa", "at 0x1"),
        ("connection to 10.0.0.1:5432 refused", "connection to 10.0.0.27:5433 refused"),
        ("two\n  lines", "two lines"),
        ("on 2026-01-02T03:04:05", "on 2025-11-12T13:14:15"),
    ],
)
def test_what_differs_from_one_occurrence_to_the_next_is_taken_out(one: str, other: str) -> None:
    assert essence(one) == essence(other)
    assert fingerprint("t", "E", one) == fingerprint("t", "E", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("order not found", "user not found"), ("facade", "decade"), ("no route", "no such host")],
)
def test_different_messages_stay_different(one: str, other: str) -> None:
    assert fingerprint("t", "E", one) != fingerprint("t", "E", other)


def test_type_and_class_count() -> None:
    assert len({fingerprint(*parts) for parts in (("a", "E", "m"), ("b", "E", "m"), ("a", "F", "m"))}) == 3


def test_a_huge_message_costs_no_more_than_a_long_one() -> None:
    assert fingerprint("t", "E", "x" * 500 + "1" * 10**6) == fingerprint("t", "E", "x" * 500)
