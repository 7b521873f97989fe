"""Sessions of people who signed in with a key: how long a token is good, and when another takes its place. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

TOKEN_LIFE = timedelta(minutes=30)
"""How long a token is good that nobody uses."""
TOKEN_AGE = timedelta(minutes=15)
"""A token older than this is replaced when it is used."""
GRACE = timedelta(minutes=1)
"""How long the token before stays good, for the calls that were on their way with it."""


@dataclass(frozen=True, slots=True)
class Session:
    """One row of `sessions`: one token of the sign-in `sign_in`. `digest` is the SHA-256 of the token's secret; the secret
    itself is nowhere. `ends_at` is when the sign-in is over, however many tokens it has had."""

    digest: str
    sign_in: str
    key_id: str
    renewed_at: datetime
    expires_at: datetime
    ends_at: datetime

    def usable(self, now: datetime) -> bool:
        """Whether the token opens anything at that moment, if its key does."""
        return now < self.expires_at

    @property
    def seconds(self) -> float:
        """How long the token is good from its making."""
        return (self.expires_at - self.renewed_at).total_seconds()

    def aged(self, now: datetime) -> bool:
        """Whether another token should take its place; of one that was replaced nothing more comes."""
        return now - self.renewed_at >= TOKEN_AGE and self.expires_at == self._end(self.renewed_at)

    def renewed(self, digest: str, now: datetime) -> "Session":
        """The token that takes its place."""
        return replace(self, digest=digest, renewed_at=now, expires_at=self._end(now))

    def _end(self, renewed_at: datetime) -> datetime:
        return min(renewed_at + TOKEN_LIFE, self.ends_at)


def begun(digest: str, sign_in: str, key_id: str, now: datetime, life: timedelta) -> Session:
    """The first token of a sign-in."""
    ends_at = now + life
    return Session(digest, sign_in, key_id, now, min(now + TOKEN_LIFE, ends_at), ends_at)
