"""What a key is, may do, and how long."""

import hmac
from datetime import UTC, datetime, timedelta

import pytest

from app.core.keys import ApiKey, Scope, digest_of, token_parts

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECRET = "s" * 43
ID = "tk0123456789ab"


def key(*scopes: Scope, **fields: object) -> ApiKey:
    return ApiKey(ID, "demo", scopes, "", digest_of(SECRET), NOW, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_stands_for_itself_and_admin_for_all(scope: Scope) -> None:
    assert key(scope).may(scope)
    assert key(Scope.ADMIN).may(scope)
    assert not any(key(scope).may(other) for other in Scope if other is not scope and scope is not Scope.ADMIN)


def test_a_key_is_good_until_it_expires_or_is_revoked() -> None:
    assert key().usable(NOW)
    assert key(expires_at=NOW + timedelta(seconds=1)).usable(NOW)
    assert not key(expires_at=NOW).usable(NOW)
    assert not key(revoked_at=NOW - timedelta(days=1)).usable(NOW)


def test_secrets_are_compared_as_digests_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(first: str, second: str) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert key().fits(SECRET)
    assert not key().fits("t" * 43)
    assert compared == [(digest_of(SECRET), digest_of(SECRET)), (digest_of("t" * 43), digest_of(SECRET))]


@pytest.mark.parametrize(
    "token",
    [
        *(
            "",
            ".",
            ID,
            f"{ID}.",
            f"{ID}.short",
            f".{SECRET}",
            f"{ID}.{SECRET}\n",
            f"{ID}.{SECRET}=",
            f"{ID}.{SECRET[1:]}ß",
        ),
        *(f" {ID}.{SECRET}", f"TK0123456789ab.{SECRET}", f"{ID}.{SECRET}.{SECRET}", "x" * 100_000, f"{ID}\0.{SECRET}"),
    ],
)
def test_what_cannot_be_a_key_is_none(token: str) -> None:
    assert token_parts(token) is None


def test_a_key_has_two_parts() -> None:
    assert token_parts(f"{ID}.{SECRET}") == (ID, SECRET)
