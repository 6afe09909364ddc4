"""How much the boxes may say: bytes a second, of one machine and of all of them together.

Whoever says more is not read meanwhile; TCP then holds it back. What a machine has used outlives its link: dialling
again gives it no more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

FRAME_COST = 1024  # bytes that a frame counts besides its own: each costs a round trip to the database
PIECE_SHARE = 8  # a piece is decoded at C speed: it counts an eighth
MACHINE_BYTES_A_SECOND = 1024 * 1024
MACHINE_BYTES_AT_ONCE = 4 * 1024 * 1024
ALL_BYTES_A_SECOND = 8 * 1024 * 1024  # parsing the worst JSON of this size is about 0.6 s of one core
ALL_BYTES_AT_ONCE = 16 * 1024 * 1024
TAKEOVERS_AT_ONCE = 3  # of one machine's link by a newer one: two boxes with one token take turns slowly
TAKEOVER_SECONDS = 20.0  # until there is one more
MACHINES_MAX = 50_000  # whose use is remembered


class Bucket:
    """So much a second, so much at once; what is taken beyond it is waited for."""

    def __init__(self, a_second: float, at_once: float) -> None:
        self._a_second, self._at_once = a_second, at_once
        self._left = at_once
        self._at: float | None = None

    def take(self, cost: float, now: float) -> float:
        """The seconds to wait first."""
        self._fill(now)
        self._left -= cost
        return max(0.0, -self._left / self._a_second)

    def take_if_there(self, cost: float, now: float) -> bool:
        self._fill(now)
        if self._left < cost:
            return False
        self._left -= cost
        return True

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._left = min(self._at_once, self._left + (now - self._at) * self._a_second)
        self._at = now


class LinkPace:
    def __init__(self, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """`now`: monotonic seconds."""
        self._now, self._sleep = now, sleep
        self._machines: OrderedDict[str, tuple[Bucket, Bucket]] = OrderedDict()
        self._all = Bucket(ALL_BYTES_A_SECOND, ALL_BYTES_AT_ONCE)
        self._turn = asyncio.Lock()  # first come, first served, and each link waits with one frame

    async def admit(self, machine_id: str, size: int, piece: bool) -> None:
        """Waits until a frame of `size` bytes may be parsed."""
        cost = FRAME_COST + (size // PIECE_SHARE if piece else size)
        if wait := self._of(machine_id)[0].take(cost, self._now()):
            await self._sleep(wait)
        async with self._turn:
            if wait := self._all.take(cost, self._now()):
                await self._sleep(wait)

    def may_take_over(self, machine_id: str) -> bool:
        """May another link of this machine end the one that is up?"""
        return self._of(machine_id)[1].take_if_there(1, self._now())

    def _of(self, machine_id: str) -> tuple[Bucket, Bucket]:
        found = self._machines.pop(machine_id, None) or (
            Bucket(MACHINE_BYTES_A_SECOND, MACHINE_BYTES_AT_ONCE),
            Bucket(1 / TAKEOVER_SECONDS, TAKEOVERS_AT_ONCE),
        )
        self._machines[machine_id] = found
        if len(self._machines) > MACHINES_MAX:
            self._machines.popitem(last=False)
        return found
