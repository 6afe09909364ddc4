"""What was asked a moment ago is not asked again: lists that many flows look at, and looks at single things.

A hundred flows that look twice a second would otherwise use up the project's budget of requests in a minute. The less
of it is left (HetznerCloud.pace), and the longer a list is, the longer an answer stands.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from hcloud import Client

from tinyfat.drivers.hetzner_cloud import HetznerCloud

T = TypeVar("T")
PER_PAGE = 50  # docs.hetzner.cloud, "Pagination": the most there is
ANSWERS_KEPT_MAX = 10_000


class Listing(Generic[T]):
    """Read once for everybody who asks within its age, one reader at a time, and no oftener than that even where
    something changed: whoever changed it waits until it may be read."""

    def __init__(
        self,
        cloud: HetznerCloud,
        doing: str,
        read: Callable[[Client], Sequence[T]],
        clock: Callable[[], float],
        seconds: float,
    ) -> None:
        self._cloud, self._doing, self._read, self._clock, self._seconds = cloud, doing, read, clock, seconds
        self._turn = asyncio.Lock()
        self._known: tuple[T, ...] = ()
        self._read_at = self._changed_at = float("-inf")

    def changed(self) -> None:
        """Something was asked for: what was read before says nothing about it."""
        self._changed_at = self._clock()

    async def all(self) -> tuple[T, ...]:
        """Never from before `changed`."""
        if self._is_fresh():
            return self._known
        async with self._turn:
            if self._is_fresh():
                return self._known
            if (wait := self._read_at + self._age_max() - self._clock()) > 0:
                await self._cloud.pause(wait)
            began = self._clock()
            self._known = tuple(await self._cloud.call(self._doing, self._read))
            self._read_at = began
            return self._known

    def _is_fresh(self) -> bool:
        return self._read_at > self._changed_at and self._clock() - self._read_at < self._age_max()

    def _age_max(self) -> float:
        return self._seconds * self._cloud.pace * max(1, math.ceil(len(self._known) / PER_PAGE))


class Answers:
    """Looks at single things. `seconds` 0: each is asked for anew."""

    def __init__(self, cloud: HetznerCloud, clock: Callable[[], float], seconds: float) -> None:
        self._cloud, self._clock, self._seconds = cloud, clock, seconds
        self._known: dict[object, tuple[float, Any]] = {}

    async def get(self, key: object, ask: Callable[[], Awaitable[T]]) -> T:
        """A failure is not remembered."""
        known = self._known.get(key)
        if known is not None and self._clock() - known[0] < self._seconds * self._cloud.pace:
            answer: T = known[1]
            return answer
        began = self._clock()
        found = await ask()
        if len(self._known) >= ANSWERS_KEPT_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[key] = began, found
        return found

    def forget(self, key: object) -> None:
        """It may be otherwise by now."""
        self._known.pop(key, None)

    def clear(self) -> None:
        self._known.clear()
