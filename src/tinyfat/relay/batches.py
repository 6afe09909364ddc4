"""Many calls, one commit: what arrives while the database is busy goes in the next batch, beginnings and ends alike."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeAlias

from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.usage import Held, Refused, Reservation, Settlement, UsageLedger

BATCH_MAX = 256
WAITING_MAX = 4096  # of beginnings; the ends of calls under way are always taken

log = logging.getLogger(__name__)

Item: TypeAlias = Reservation | Settlement | str  # str: the id of a call that is released
_Waiting: TypeAlias = tuple[Item, asyncio.Future[Any]]


class Overloaded(Exception):
    """More waits for the ledger than ever should."""


class LedgerDesk:
    """At most one batch is under way. Each method's future is done when it is committed, and what ended is on disk; or
    when it is not to be: then it has the ledger's error. To cancel it ends the waiting alone: what was asked for still
    happens, but a hold that nobody waits for any more is released."""

    def __init__(self, ledger: UsageLedger) -> None:
        self._ledger = ledger
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None

    def reserve(self, reservation: Reservation) -> asyncio.Future[Held | Refused]:
        """Raises Overloaded."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded("too many calls wait for the ledger")
        return self._put(reservation)

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        return self._put(settlement)

    def release(self, call_id: str) -> asyncio.Future[None]:
        return self._put(call_id)

    async def close(self) -> None:
        """What was asked for until now is written, or failed, when it returns."""
        while self._running is not None:
            await asyncio.wait([self._running])

    def _put(self, item: Item) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="ledger desk")
        return done

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                await self._commit(batch)
        finally:
            self._running = None

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            verdicts = iter(
                await self._ledger.commit(
                    [item for item, _ in batch if isinstance(item, Reservation)],
                    [item for item, _ in batch if isinstance(item, Settlement)],
                    [item for item, _ in batch if isinstance(item, str)],
                )
            )
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                for one in batch:  # what cannot be written is alone to blame: the others are
                    await self._commit([one])
                return
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for item, done in batch:
            result = next(verdicts) if isinstance(item, Reservation) else None
            if not done.done():
                done.set_result(result)
            elif isinstance(result, Held):
                self.release(result.call_id).add_done_callback(heard)


def heard(released: asyncio.Future[None]) -> None:
    """Nobody waits for it: the ledger itself ends later what it could not end now."""
    if not released.cancelled() and released.exception() is not None:
        log.warning("a call whose client had gone is not released now: %s", released.exception())
