"""Budgets of requests and remembered shortages of one process: for commands without a database, and for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tinyfat.domain.request_limits import Bucket, RequestLimit, full
from tinyfat.domain.shortages import Shortage, probed, short_again


class LocalBudget:
    """Implements ports/requests RequestBudget."""

    def __init__(self, limit: RequestLimit, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self._limit, self._clock = limit, clock
        self._bucket: Bucket = full(limit, clock())
        self._lock = threading.Lock()  # a driver may serve several event loops

    async def take(self, ending: bool, more: int = 0, left: float | None = None) -> tuple[float, float]:
        with self._lock:
            now = self._clock()
            corrected = self._bucket.refilled(self._limit, now).corrected(self._limit, more, left)
            self._bucket, wait = corrected.take(self._limit, now, ending)
            return wait, self._bucket.tokens / self._limit.capacity

    async def refused(self, seconds: float) -> None:
        with self._lock:
            self._bucket = self._bucket.refused(self._clock(), seconds)


class LocalShortages:
    """Implements ports/requests Shortages."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, Shortage] = {}

    async def known(self) -> dict[str, float]:
        return {thing: max(0.0, one.until - self._clock()) for thing, one in self._known.items()}

    async def probe(self, thing: str) -> bool:
        known, now = self._known.get(thing), self._clock()
        if known is not None and known.until > now:
            return False
        if known is not None:
            self._known[thing] = probed(known, now)
        return True

    async def short(self, thing: str) -> None:
        self._known[thing] = short_again(self._known.get(thing), self._clock())

    async def there(self, thing: str) -> None:
        self._known.pop(thing, None)
