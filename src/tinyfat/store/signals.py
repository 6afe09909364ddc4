"""NOTIFY and LISTEN: how one process of the control plane wakes another. A hint, never the truth: whoever waits also
looks for itself every few seconds, so a signal lost in an outage costs time and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tinyfat.store.database import LINE, Connection

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
                async with await psycopg.AsyncConnection.connect(self._url, autocommit=True, **LINE) as connection:
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


class Words:
    """Of one channel: whoever waits for the next word about one thing."""

    def __init__(self, signals: Signals, channel: str) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        signals.on(channel, self._wake, self._wake_all)

    @contextmanager
    def heard(self, payload: str) -> Iterator[asyncio.Event]:
        """Set at each signal with this payload, and at any that may have been missed, from now on: who clears it
        before looking misses none."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(payload, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(payload, None)

    async def next(self, payload: str, seconds: float) -> None:
        """Returns at such a signal, or after so many seconds."""
        with self.heard(payload) as event:
            await either(event, seconds)

    def _wake(self, payload: str) -> None:
        for event in self._waiting.get(payload, ()):
            event.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()


async def either(event: asyncio.Event, seconds: float) -> None:
    """Returns when it is set, or after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


async def signal(connection: Connection, channel: str, payload: str) -> None:
    """Sent when the transaction commits."""
    await connection.execute("select pg_notify(%s, %s)", (channel, payload))
