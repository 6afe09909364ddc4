"""Rows by name: what is asked for in one moment is one statement, over a connection of its own. Whom a mail is for is
asked twice with each mail, and that took a fifth of the time in which one is accepted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, LiteralString, TypeVar

from psycopg.rows import TupleRow

from tinyfat.ports.ledger import StoreUnavailable
from tinyfat.store.database import OneConnection

ASKED_MAX = 64  # names in one statement
WAITING_MAX = 4096  # names: more than all sessions of all listeners can ask for at once

T = TypeVar("T")
_Waiting = tuple[str, "asyncio.Future[TupleRow | None]"]


class ByName(Generic[T]):
    """Rows by their name, each as it stands after it was asked for: who comes while a statement runs is in the next."""

    def __init__(self, connection: OneConnection, statement: LiteralString, read: Callable[[TupleRow], T]) -> None:
        """`statement`: gives the rows of the names in its one value, an array, with the name first. `read`: of such a
        row."""
        self._connection, self._statement, self._read = connection, statement, read
        self._waiting: deque[_Waiting] = deque()
        self._asking: asyncio.Task[None] | None = None

    async def get(self, name: str) -> T | None:
        """None where there is no such row. Raises StoreUnavailable."""
        if len(self._waiting) >= WAITING_MAX:
            raise StoreUnavailable("too many ask the database for a name")
        found: asyncio.Future[TupleRow | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, found))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="ask for names")
        row = await found
        return None if row is None else self._read(row)

    async def _ask(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(ASKED_MAX, len(self._waiting)))]
            try:
                rows = await self._connection.fetch(self._statement, ([name for name, _ in batch],))
            except Exception as error:
                for _, found in batch:
                    if not found.done():
                        found.set_exception(error)
                continue
            by_name = {row[0]: row for row in rows}
            for name, found in batch:
                if not found.done():  # whoever asked has gone
                    found.set_result(by_name.get(name))
