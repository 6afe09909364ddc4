"""What the keeper of the runtime tells the desk of turns: whether there is a runtime to ask, and if not, why."""

from __future__ import annotations

import asyncio

from tinyfat.box.runtime import Runtime


class Workplace:
    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.why_not = "the control plane has not yet said what to run"  # for the operator
        self._ready = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @property
    def turns_at_once(self) -> int:
        return self.runtime.turns_at_once if self.runtime else 1

    def opened(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._ready.set()

    def closed(self, why_not: str) -> None:
        self.why_not = why_not
        self._ready.clear()

    async def until_ready(self) -> Runtime:
        while self.runtime is None or not self._ready.is_set():
            await self._ready.wait()
        return self.runtime
