"""Mails of one moment, one commit: what arrives while the database is busy goes in the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from tinyfat.ports.ledger import Accepted, Incoming, StoreUnavailable
from tinyfat.ports.mail import NoRoom

BATCH_MAILS_MAX = 32
BATCH_BYTES_MAX = 2 * 1024**2  # a large mail goes alone: the small ones do not wait for it
LANES = 1  # commits under way: with two, each batch is half as large, and what a statement costs is paid twice
WAITING_MAX = 2048  # mails

# For each agent of a mail in the order given, or why none of them has room for it.
Outcome: TypeAlias = list[Accepted] | NoRoom
Commit: TypeAlias = Callable[[Sequence[Sequence[Incoming]]], Awaitable[list[Outcome]]]
_Waiting: TypeAlias = tuple[Sequence[Incoming], asyncio.Future[list[Accepted]]]


class MailBatches:
    def __init__(self, commit: Commit) -> None:
        """`commit`: all of them, or an error and none."""
        self._commit = commit
        self._waiting: deque[_Waiting] = deque()
        self._busy = 0  # lanes
        self._lanes: set[asyncio.Task[None]] = set()

    async def accept(self, mail: Sequence[Incoming]) -> list[Accepted]:
        """On disk when it returns. Who gives up waiting may find it kept all the same: sent again it is a copy. Raises
        NoRoom, StoreUnavailable."""
        if self._busy < LANES and not self._waiting:
            return await self._alone(mail)
        if len(self._waiting) >= WAITING_MAX:
            raise StoreUnavailable("too many mails wait for the database")
        done: asyncio.Future[list[Accepted]] = asyncio.get_running_loop().create_future()
        self._waiting.append((mail, done))
        return await done

    async def _alone(self, mail: Sequence[Incoming]) -> list[Accepted]:
        """Nobody waits whom it could go with."""
        self._busy += 1
        try:
            [outcome] = await self._commit([mail])
        finally:
            self._busy -= 1
            self._go_on()
        if isinstance(outcome, NoRoom):
            raise outcome
        return outcome

    def _go_on(self) -> None:
        if self._waiting and self._busy < LANES:
            self._busy += 1
            lane = asyncio.create_task(self._run(), name="mail batches")
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._settle(self._next())
        finally:
            self._busy -= 1

    def _next(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        size = _bytes(batch[0])
        while self._waiting and len(batch) < BATCH_MAILS_MAX:
            size += _bytes(self._waiting[0])
            if size > BATCH_BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _settle(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await self._commit([mail for mail, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                for one in batch:  # what cannot be written is alone to blame: the others are
                    await self._settle([one])
                return
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, NoRoom):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)


def _bytes(waiting: _Waiting) -> int:
    return len(waiting[0][0].raw)
