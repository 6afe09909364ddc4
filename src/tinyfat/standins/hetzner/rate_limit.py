"""The rate limit of the Hetzner Cloud API (reference, "Rate Limiting"): so many an hour, refilled gradually."""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_REQUESTS_PER_HOUR = 3600
_HOUR_SECONDS = 3600.0


@dataclass(slots=True)
class RateLimit:
    per_hour: int
    remaining: float
    refilled_at: float  # Unix seconds

    def take(self, now: float, empty: bool = False) -> bool:
        """True: the request may pass. `empty`: as if all had been used up."""
        grown = self.remaining + max(0.0, now - self.refilled_at) * self.per_hour / _HOUR_SECONDS
        self.remaining, self.refilled_at = min(float(self.per_hour), grown), now
        if empty or self.remaining < 1:
            return False
        self.remaining -= 1
        return True

    def headers(self, empty: bool = False) -> dict[str, str]:
        left = 0 if empty else math.floor(self.remaining)
        full_at = self.refilled_at + (self.per_hour - left) * _HOUR_SECONDS / self.per_hour
        return {
            "RateLimit-Limit": str(self.per_hour),
            "RateLimit-Remaining": str(left),
            "RateLimit-Reset": str(math.ceil(full_at)),
        }
