"""Can a mail be taken in now? Found out as a mail would: by a commit that waits for the disk, and the room on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.ports.mail import NoRoom

KNOWN_SECONDS = 1.0  # anybody may ask: the answer is found out this often at most
WRITE_SECONDS_MAX = 5.0


class Readiness:
    def __init__(
        self, write: Callable[[], Awaitable[None]], room: Callable[[int], None], clock: Callable[[], float]
    ) -> None:
        """`write`: one row, and its commit; `room` raises NoRoom; `clock`: seconds."""
        self._write = write
        self._room = room
        self._clock = clock
        self._found: tuple[float, str] | None = None
        self._finding = asyncio.Lock()

    async def complaint(self) -> str:
        """Empty where a mail can be taken in."""
        async with self._finding:
            if self._found is None or self._clock() - self._found[0] >= KNOWN_SECONDS:
                complaint = await self._find()
                self._found = (self._clock(), complaint)
            return self._found[1]

    async def _find(self) -> str:
        try:
            self._room(0)
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                await self._write()
        except TimeoutError:
            return f"The database commits nothing within {WRITE_SECONDS_MAX:.0f} s."
        except (NoRoom, StoreUnavailable) as error:
            return str(error)
        return ""
