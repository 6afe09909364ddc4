"""Answers whose client has hung up, read to their end for what they say of their usage.

Some vendors stop when they are hung up on, and bill what they had produced; others go on and bill all of it; and with
neither is it known here what that was. So none is hung up on: to hear the end costs at most what was held for the call,
and is paid to the token. What is not heard in time, or would be one too many, is paid as held.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from tinyfat.ports.inference import VendorCut, VendorUnreachable
from tinyfat.relay.reply import Reply

DRAIN_SECONDS_MAX = 120.0
DRAIN_BYTES_MAX = 16 * 1024 * 1024
DRAINS_MAX = 256  # at once
DRAINS_PER_AGENT_MAX = 32
STOP_SECONDS_MAX = 2.0  # when the process ends


class Drains:
    def __init__(self, silence_seconds: float) -> None:
        """`silence_seconds`: so long is waited for a vendor's next word."""
        self._silence_seconds = silence_seconds
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing = False
        self._of_agent: Counter[str] = Counter()

    async def drain(self, agent_id: str, reply: Reply) -> None:
        """Returns when the answer has ended, or will not be waited for any longer."""
        if self._closing or len(self._under_way) >= DRAINS_MAX or self._of_agent[agent_id] >= DRAINS_PER_AGENT_MAX:
            return
        task = asyncio.create_task(self._finish(reply), name="drain")
        self._under_way.add(task)
        self._of_agent[agent_id] += 1
        try:
            await asyncio.wait([task])
        finally:
            self._under_way.discard(task)
            self._of_agent[agent_id] -= 1
            if not self._of_agent[agent_id]:
                del self._of_agent[agent_id]

    async def close(self) -> None:
        """Those under way get a moment; then they are ended, and paid as held, as is what would begin now."""
        await asyncio.sleep(0)  # calls that were cut just now begin theirs
        self._closing = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=STOP_SECONDS_MAX)
            for task in late:
                task.cancel()

    async def _finish(self, reply: Reply) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await reply.finish(self._silence_seconds, DRAIN_BYTES_MAX)
        except (VendorCut, VendorUnreachable, TimeoutError):
            return
