"""How often a vendor may be asked: a bucket of requests that refills, with a reserve for what ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

PAUSE_SECONDS_MAX = 3600.0  # a vendor's word on when it may be asked again is believed for so long


@dataclass(frozen=True, slots=True)
class RequestLimit:
    capacity: float  # requests in a full bucket
    per_second: float  # given back
    reserve: float  # of the capacity, kept for ends: deletes, addresses let go, names removed


# docs.hetzner.cloud, "Rate Limiting": 3,600 requests an hour a project, given back one a second; RateLimit-Reset says
# when all of them are there again.
HETZNER_LIMIT = RequestLimit(3600, 1.0, 600)
# developers.cloudflare.com, "API limits": 1,200 requests in five minutes, then none for five minutes. The window does
# not refill gradually: half of it in store and half of it as pace is never more than all of it in any five minutes.
CLOUDFLARE_LIMIT = RequestLimit(600, 2.0, 100)


@dataclass(frozen=True, slots=True)
class Bucket:
    tokens: float
    at: float  # Unix seconds of `tokens`
    paused_until: float = 0.0  # but for ends

    def refilled(self, limit: RequestLimit, now: float) -> Bucket:
        grown = self.tokens + max(0.0, now - self.at) * limit.per_second
        return replace(self, tokens=min(limit.capacity, grown), at=max(now, self.at))

    def take(self, limit: RequestLimit, now: float, ending: bool) -> tuple[Bucket, float]:
        """One request, and 0.0; or what there was, and in how many seconds to ask again."""
        here = self.refilled(limit, now)
        wait = 0.0 if ending else max(0.0, here.paused_until - now)
        missing = 1.0 + (0.0 if ending else limit.reserve) - here.tokens
        wait = max(wait, missing / limit.per_second)
        return (here, wait) if wait > 0 else (replace(here, tokens=here.tokens - 1.0), 0.0)

    def corrected(self, limit: RequestLimit, more: int, left: float | None) -> Bucket:
        """`more` requests were made than were taken; the vendor says that `left` are left: others ask it too."""
        tokens = self.tokens - more
        return replace(self, tokens=max(0.0, tokens if left is None else min(tokens, left)))

    def refused(self, now: float, seconds: float) -> Bucket:
        """The vendor has had enough, and gives nothing for so many seconds."""
        until = now + min(max(0.0, seconds), PAUSE_SECONDS_MAX)
        return replace(self, tokens=0.0, at=max(now, self.at), paused_until=max(self.paused_until, until))


def full(limit: RequestLimit, now: float) -> Bucket:
    return Bucket(limit.capacity, now)
