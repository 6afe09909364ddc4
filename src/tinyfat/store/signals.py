"""NOTIFY and LISTEN: how one process of the control plane wakes another. A hint, never the truth: whoever waits also
looks for itself every few seconds, so a signal lost in an outage costs time and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from psycopg import sql

from tinyfat.store.database import Connection

RECONNECT_SECONDS = 0.5

Handler = Callable[[str], None]


class Signals:
    def __init__(self, url: str) -> None:
        self._url = url
        self._handlers: dict[str, Handler] = {}
        self._again: list[Callable[[], None]] = []

    def on(self, channel: str, handler: Handler, after_outage: Callable[[], None]) -> None:
        """`handler` gets each payload; `after_outage` runs whenever signals may have been missed. Before `run`."""
        self._handlers[channel] = handler
        self._again.append(after_outage)

    async def run(self) -> None:
        """For ever; cancelled at the end."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
                    await self._listen(connection)
            except psycopg.Error:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, connection: Connection) -> None:
        for channel in self._handlers:
            await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        for look_again in self._again:
            look_again()
        async for notice in connection.notifies():
            self._handlers[notice.channel](notice.payload)


async def signal(connection: Connection, channel: str, payload: str) -> None:
    """Sent when the transaction commits."""
    await connection.execute("select pg_notify(%s, %s)", (channel, payload))
