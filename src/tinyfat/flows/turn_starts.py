"""A mail's turn is started once its peer has heard 250: what the peer waits for is the disk alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tinyfat.ports.ledger import StoreUnavailable

UNDER_WAY_MAX = 256  # starts; more are left to the sweep

log = logging.getLogger(__name__)


class TurnStarts:
    """What is not started here, for want of a place or of a database or because this process was killed, is in the
    ledger as a turn that waits, and `MailTurn.sweep` starts it."""

    def __init__(self, start: Callable[[str, int], Awaitable[None]]) -> None:
        self._start = start
        self._under_way: set[asyncio.Task[None]] = set()

    async def soon(self, turn_id: str, attempt: int) -> None:
        """Returns before it is started."""
        if len(self._under_way) >= UNDER_WAY_MAX:
            return
        task = asyncio.create_task(self._begin(turn_id, attempt), name=f"start {turn_id}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """What was begun has ended. Before the engine's own end."""
        await asyncio.gather(*self._under_way)

    async def _begin(self, turn_id: str, attempt: int) -> None:
        try:
            await self._start(turn_id, attempt)
        except StoreUnavailable:
            log.warning("turn %s is started later: the database does not answer", turn_id)
        except Exception:
            log.exception("turn %s is started later", turn_id)
