"""Work that is done again and again beside the flows: sweeps, looks, heartbeats."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeAlias

from tinyfat.domain.repeated import Repeated
from tinyfat.ports.ledger import StoreUnavailable

Beat: TypeAlias = tuple[str, float, Callable[[], Awaitable[object]]]  # its name, the seconds between two, what is done

log = logging.getLogger(__name__)


class Beats:
    """Each has a task of its own, until `cancel`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, beats: Iterable[Beat]) -> None:
        for name, seconds, work in beats:
            self._tasks.append(asyncio.create_task(self._again_and_again(name, seconds, work), name=name))

    def begin_one(self, name: str, endless: Coroutine[Any, Any, None]) -> None:
        """For work that has a loop of its own."""
        self._tasks.append(asyncio.create_task(endless, name=name))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _again_and_again(self, name: str, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """One failure is not the end of a loop that mends things; one that lasts is told less and less."""
        repeated = Repeated(self._clock)
        while True:
            try:
                await work()
                if times := repeated.ended(name):
                    log.warning("%s: works again; it had failed %d times", name, times)
            except StoreUnavailable:
                if times := repeated.failed(name, "the database"):
                    log.warning("%s: the database does not answer (%d times by now); trying again", name, times)
            except Exception as error:
                if times := repeated.failed(name, repr(error)):
                    log.exception("%s: failed (%d times by now); trying again", name, times)
            await asyncio.sleep(seconds)
