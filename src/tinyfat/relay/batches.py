"""Many calls, one commit: what arrives while the database is busy goes in the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from tinyfat.ports.usage import Held, Refused, Reservation, Settlement, UsageLedger

BATCH_MAX = 256
WAITING_MAX = 4096

T = TypeVar("T")
R = TypeVar("R")


class Overloaded(Exception):
    """More waits for the ledger than ever should."""


class Lane(Generic[T, R]):
    """One kind of statement: at most one batch under way."""

    def __init__(self, commit: Callable[[list[T]], Awaitable[Sequence[R]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._running: asyncio.Task[None] | None = None

    def put(self, item: T) -> asyncio.Future[R]:
        """Done when it is on disk, or not to be: then with the ledger's error. Raises Overloaded."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded("too many calls wait for the ledger")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="ledger lane")
        return done

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                await self._one(batch)
        finally:
            self._running = None

    async def _one(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._commit([item for item, _ in batch])
        except Exception as error:
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)


class LedgerDesk:
    def __init__(self, ledger: UsageLedger) -> None:
        self._ledger = ledger
        self._reserving: Lane[Reservation, Held | Refused] = Lane(ledger.reserve)
        self._settling: Lane[Settlement, None] = Lane(self._settle)
        self._releasing: Lane[str, None] = Lane(self._release)

    def reserve(self, reservation: Reservation) -> asyncio.Future[Held | Refused]:
        return self._reserving.put(reservation)

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        return self._settling.put(settlement)

    def release(self, call_id: str) -> asyncio.Future[None]:
        return self._releasing.put(call_id)

    async def _settle(self, settlements: list[Settlement]) -> list[None]:
        await self._ledger.settle(settlements)
        return [None] * len(settlements)

    async def _release(self, call_ids: list[str]) -> list[None]:
        await self._ledger.release(call_ids)
        return [None] * len(call_ids)
