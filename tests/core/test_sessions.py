"""How long a token of a session is good, and when another takes its place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.sessions import GRACE, TOKEN_AGE, TOKEN_LIFE, begun

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MOMENT = timedelta(milliseconds=1)
SESSION = begun("d1", "s", "tk1", NOW, timedelta(hours=8))


def test_a_token_is_good_for_half_an_hour_and_replaced_after_half_of_it() -> None:
    assert SESSION.usable(NOW + TOKEN_LIFE - MOMENT)
    assert not SESSION.usable(NOW + TOKEN_LIFE)
    assert not SESSION.aged(NOW + TOKEN_AGE - MOMENT)
    assert SESSION.aged(NOW + TOKEN_AGE)
    assert SESSION.seconds == 1800


def test_the_next_token_is_of_the_same_sign_in_and_ends_with_it() -> None:
    later = NOW + timedelta(hours=7, minutes=50)
    fresh = SESSION.renewed("d2", later)
    assert (fresh.digest, fresh.sign_in, fresh.key_id) == ("d2", "s", "tk1")
    assert fresh.ends_at == SESSION.ends_at == fresh.expires_at
    assert not fresh.usable(NOW + timedelta(hours=8))
    assert fresh.seconds == 600


def test_a_token_that_was_replaced_is_not_replaced_again() -> None:
    """Whoever stole it would otherwise have a session of their own."""
    later = NOW + TOKEN_AGE
    old = replace(SESSION, expires_at=later + GRACE)
    assert old.usable(later)
    assert not old.aged(later)


@pytest.mark.parametrize("life", [timedelta(seconds=1), TOKEN_AGE])
def test_a_short_life_is_kept_to(life: timedelta) -> None:
    session = begun("d", "s", "tk1", NOW, life)
    assert session.usable(NOW + life - MOMENT)
    assert not session.usable(NOW + life)
