"""How long to wait before trying again."""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Full jitter: anything up to an exponentially growing bound, so that many processes do not knock as one."""

    base_s: float = 0.1
    cap_s: float = 5.0
    failures: int = 0

    def next_s(self) -> float:
        """Count a failure; the seconds to wait after it."""
        bound_s = min(self.cap_s, self.base_s * 2 ** min(self.failures, 30))
        self.failures += 1
        return random.uniform(0, bound_s)

    def reset(self) -> None:
        """It worked."""
        self.failures = 0
