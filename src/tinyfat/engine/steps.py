"""What a flow sees of the engine: steps that are done once, and starting other flows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

# A flow is started with one word, the id of what it is about; everything else it loads itself, so that what it acts on
# is never older than the moment it acts.
Flow = Callable[["Steps", str], Awaitable[None]]


class Steps(Protocol):
    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, remember its result, and after a crash give back the result instead of doing it again.

        A crash inside the work means it is done again: so each step's effect must be idempotent. What the step returns
        is kept in the database: small and plain. The database's absence is waited out.
        """
        ...

    async def again(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` whose whole effect is in the ledger, where doing it again changes nothing: its result is not
        remembered, which saves two commits, and may be anything. The database's absence is waited out."""
        ...


class FlowStatus(Protocol):
    async def start(self, flow: str, flow_id: str, subject: str) -> None:
        """Begin a flow; nothing happens where one with this id was begun before."""
        ...

    async def broken(self, flow_id: str) -> bool:
        """It ended with an error of its own (a bug, a result that cannot be read): it will not go on by itself."""
        ...
