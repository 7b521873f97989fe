"""API keys: what a key may do, for whom, and how long. Pure: the secret is made and the key looked up elsewhere."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

NAME = r"^[A-Za-z0-9._:-]{1,64}$"
"""What a key, and a tenant, may be called."""
LONGEST_TOKEN = 200
"""Characters; a longer one is none of ours, and need not be hashed to know that."""

_TOKEN = re.compile(r"(tk[0-9a-f]{12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Scope(StrEnum):
    """What a key may do. Each stands for itself; `admin` may do everything."""

    READ = "read"
    SUBMIT = "submit"
    WORK = "work"
    MANAGE = "manage"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One row of `api_keys`. `digest` is the SHA-256 of the secret, hexadecimal; the secret itself is nowhere.

    A key of a tenant knows only what belongs to that tenant; one without a tenant (empty) is the operator's and sees all.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    tenant: str
    digest: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it may do what asks for `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def usable(self, now: datetime) -> bool:
        """Whether it opens anything at all at that moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def fits(self, secret: str) -> bool:
        """Whether `secret` is its secret; how long the answer takes does not say how much of it was right."""
        return hmac.compare_digest(digest_of(secret), self.digest)


def digest_of(secret: str) -> str:
    """What is stored of a secret. It has 256 random bits, so that nobody can try them: a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


def token_parts(token: str) -> tuple[str, str] | None:
    """A key as it is sent, `id.secret`, in its two parts; None for what cannot be one."""
    found = _TOKEN.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
    return None if found is None else (found[1], found[2])
