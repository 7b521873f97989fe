"""How long to wait before the next attempt: arithmetic only."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from app.core.errors import PluginError

RetryKind = Literal["exponential", "fixed"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The wait between attempts: growing (`exponential`, doubling up to the ceiling) or always the base (`fixed`).

    With `jitter` the delay is drawn evenly from 0 to that width, so a crowd that failed together does not come back
    together (Marc Brooker, "Exponential Backoff And Jitter", AWS 2015); without it the delay is the width. Raises
    PluginError for what makes no sense.
    """

    base_seconds: float = 1.0
    ceiling_seconds: float = 3600.0
    policy: RetryKind = "exponential"
    jitter: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.base_seconds <= self.ceiling_seconds:
            raise PluginError(
                f"RetryPolicy: base_seconds must be from 0 to ceiling_seconds, not {self.base_seconds}"
                f" with a ceiling of {self.ceiling_seconds}"
            )
        if self.policy not in ("exponential", "fixed"):
            raise PluginError(f"RetryPolicy: policy must be exponential or fixed, not {self.policy!r}")

    def delay_seconds(self, attempt: int, random: Random) -> float:
        """Seconds to wait after attempt number `attempt` (from 1) failed."""
        # 2 ** 62 is beyond any ceiling; without the bound a huge attempt number would overflow a float.
        growth = 2.0 ** min(attempt - 1, 62) if self.policy == "exponential" else 1.0
        width = min(self.ceiling_seconds, self.base_seconds * growth)
        return random.uniform(0.0, width) if self.jitter else width
