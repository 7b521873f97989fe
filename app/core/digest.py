"""What a table holds, as a count and a sum: the same for the same rows, in whatever order they come."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

_MODULUS = 2**256


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows, and the sum of their SHA-256. The order does not count because texts sort differently on each store."""

    rows: int = 0
    total: int = 0

    def plus(self, rows: Iterable[tuple[object, ...]]) -> "Digest":
        """The digest of these rows and more."""
        hashes = [int.from_bytes(hashlib.sha256(repr(row).encode()).digest()) for row in rows]
        return Digest(self.rows + len(hashes), (self.total + sum(hashes)) % _MODULUS)
