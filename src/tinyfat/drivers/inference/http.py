"""Calls to vendors over HTTP/1.1, on kept connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias
from urllib.parse import quote, urlsplit

import aiohappyeyeballs

from tinyfat.drivers.inference.connection import Connection
from tinyfat.ports.inference import Answer, Call, Sent, VendorCut, VendorUnreachable

CONNECT_SECONDS_MAX = 10.0
NEXT_ADDRESS_SECONDS = 0.25  # then a vendor's next address is tried beside the first (RFC 8305, 5)
KEPT_MAX = 256  # connections that wait for their next call
URLS_MAX = 1024  # that are remembered
_Found: TypeAlias = Sequence[aiohappyeyeballs.AddrInfoType]
_SAFE = "/%:@!$&'()*+,;=~"  # of a path; in a query also "?"


class HttpInference:
    """Made inside a running loop. It knows no proxy settings of the environment, follows no redirect, and never makes a
    call a second time."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._kept: dict[_Place, dict[Connection, None]] = {}
        self._kept_count = 0
        self._room = KEPT_MAX
        self._lookups: dict[_Place, asyncio.Task[_Found]] = {}

    async def open(self, call: Call) -> Answer:
        sent = await self.send(call)
        try:
            return await sent.answer()
        except BaseException:
            sent.close()
            raise

    async def send(self, call: Call) -> Sent:
        until = asyncio.get_running_loop().time() + call.first_byte_seconds
        connection: Connection | None = None
        try:
            place, line = _parsed(call.url)
            head = _head(line, call)
            connection = self._waiting(place) or await self._connected(place, call.first_byte_seconds)
            connection.send(head, call.body, until)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, (TimeoutError, OSError, ValueError)):
                raise
            # The error's own text may hold the URL and no more; the headers are never in it.
            raise VendorUnreachable(f"{type(error).__name__}: {str(error)[:200] or 'no answer in time'}") from error
        return _HttpSent(connection, call.idle_seconds, lambda: self._keep(place, connection))

    async def close(self) -> None:
        """Calls under way go on; their connections are not kept."""
        self._room = 0
        for connections in list(self._kept.values()):
            for connection in list(connections):
                connection.close()

    def _waiting(self, place: _Place) -> Connection | None:
        """The one used last: the others may be closed for want of use."""
        connections = self._kept.get(place)
        while connections:
            connection, _ = connections.popitem()
            self._kept_count -= 1
            if not connection.closing:
                return connection
        return None

    def _keep(self, place: _Place, connection: Connection) -> None:
        if self._kept_count >= self._room:
            connection.close()
        elif connection.rest():
            self._kept.setdefault(place, {})[connection] = None
            self._kept_count += 1

    def _gone(self, place: _Place, connection: Connection) -> None:
        connections = self._kept.get(place, {})
        if connection in connections:
            del connections[connection]
            self._kept_count -= 1
        if not connections:
            self._kept.pop(place, None)

    async def _connected(self, place: _Place, seconds: float) -> Connection:
        """Raises TimeoutError, OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(min(seconds, CONNECT_SECONDS_MAX)):
            found = await self._looked_up(place)
            connected = await aiohappyeyeballs.start_connection(
                found, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
            )
            making = loop.create_connection(
                lambda: Connection(lambda gone: self._gone(place, gone)),
                sock=connected,
                ssl=self._tls if place.tls else None,
                server_hostname=place.host if place.tls else None,
                ssl_handshake_timeout=CONNECT_SECONDS_MAX if place.tls else None,
            )
            made = asyncio.create_task(making, name="connect to a vendor")
            try:  # it is never cancelled: where TLS has just begun, both loops would let go of an open socket
                _, connection = await asyncio.shield(made)
            except BaseException:
                made.add_done_callback(_unwanted)
                raise
        return connection

    async def _looked_up(self, place: _Place) -> _Found:
        """By one lookup for all that wait for it: a few threads do them, and one that hangs keeps its thread."""
        lookup = self._lookups.get(place)
        if lookup is None:
            finding = asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            lookup = self._lookups[place] = asyncio.create_task(finding, name="look a vendor up")
            lookup.add_done_callback(lambda _: self._lookups.pop(place))
        return await asyncio.shield(lookup)


class _Place(NamedTuple):
    host: str
    port: int
    tls: bool


class _HttpSent:
    def __init__(self, connection: Connection, idle_seconds: float, over: Callable[[], None]) -> None:
        self._connection, self._idle_seconds, self._over = connection, idle_seconds, over
        self._answered = False

    async def answer(self) -> Answer:
        connection = self._connection
        try:
            status = await connection.head()
            first = await connection.read() if status < 400 else b""
            if not first and status < 400:
                raise VendorCut("it ended before its first byte")
        except VendorCut as error:
            silent = connection.silent
            connection.close()
            raise VendorUnreachable(f"VendorCut: {str(error)[:200]}", silent) from error
        self._answered = True
        connection.wait_at_most(self._idle_seconds)
        return _HttpAnswer(connection, first, self._over)

    def close(self) -> None:
        if not self._answered:
            self._connection.close()


class _HttpAnswer:
    def __init__(self, connection: Connection, first: bytes, over: Callable[[], None]) -> None:
        self._connection, self._first, self._over = connection, first, over
        self._closed = False
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        first, self._first = self._first, b""
        yield first
        while piece := await self.next():
            yield piece

    async def next(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        if self._closed:  # the connection is another call's
            raise VendorCut("it was closed")
        return await self._connection.read()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._over()


def _unwanted(made: asyncio.Task[tuple[asyncio.Transport, Connection]]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result()[1].close()


@lru_cache(URLS_MAX)
def _parsed(url: str) -> tuple[_Place, str]:
    """Where it is, and how a request for it begins. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no URL of a vendor")
    tls = parts.scheme == "https"
    host = parts.hostname.encode("idna").decode()
    named = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else "")
    place = _Place(host, parts.port or (443 if tls else 80), tls)
    return place, f"POST {target} HTTP/1.1\r\nhost: {named}\r\naccept: */*\r\n"


def _head(line: str, call: Call) -> bytes:
    """Raises ValueError, which does not show a header's value."""
    headers = "".join([f"{name}: {value}\r\n" for name, value in call.headers.items()])
    if headers.count("\r") != len(call.headers) or headers.count("\n") != len(call.headers) or "\0" in headers:
        raise ValueError("a header holds a line break")
    try:
        return f"{line}{headers}content-length: {len(call.body)}\r\n\r\n".encode()
    except UnicodeEncodeError:
        raise ValueError("a header is not UTF-8") from None
