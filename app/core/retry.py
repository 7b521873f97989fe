"""How long to wait before the next attempt: arithmetic only."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    The delay before attempt n + 1 is drawn evenly from 0 to min(ceiling, base * 2 ** (n - 1)) seconds, so a crowd that
    failed together does not come back together (Marc Brooker, "Exponential Backoff And Jitter", AWS 2015).
    """

    base_seconds: float = 1.0
    ceiling_seconds: float = 3600.0

    def delay_seconds(self, attempt: int, random: Random) -> float:
        """Seconds to wait after attempt number `attempt` (from 1) failed."""
        # 2 ** 62 is beyond any ceiling; without the bound a huge attempt number would overflow a float.
        widest = min(self.ceiling_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 62))
        return random.uniform(0.0, widest)
