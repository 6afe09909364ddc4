"""The sockets: UDP, and TCP at the same port for what does not fit (RFC 7766)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from tinyfat.dns_server.answering import ServedZone, answer

CONNECTIONS_MAX = 64
QUERIES_MAX = 100  # over one connection
IDLE_SECONDS_MAX = 10.0
PORT_TRIES_MAX = 10

Zones = Callable[[], Sequence[ServedZone]]
SocketAddress = tuple[str, int]


@asynccontextmanager
async def dns_served(zones: Zones, host: str, port: int) -> AsyncIterator[int]:
    """Its port; 0 takes a free one. Raises OSError where the address cannot be taken."""
    udp, tcp = _sockets(host, port)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Datagrams(zones), sock=udp)
    connections: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(partial(_connection, zones, connections), sock=tcp)
    try:
        yield int(tcp.getsockname()[1])
    finally:
        transport.close()
        server.close()
        open_ones = list(connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await server.wait_closed()


def _sockets(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Both at one port. A free one of UDP may be taken for TCP, then another is tried."""
    for left in reversed(range(PORT_TRIES_MAX)):
        udp = _bound(host, port, socket.SOCK_DGRAM)
        try:
            return udp, _bound(host, udp.getsockname()[1], socket.SOCK_STREAM)
        except OSError:
            udp.close()
            if port or not left:
                raise
    raise AssertionError("the loop returns or raises")


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        if kind is socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zones: Zones) -> None:
        self._zones = zones

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: SocketAddress) -> None:
        said = answer(data, self._zones(), over_udp=True)
        if said is not None:
            self._transport.sendto(said, address)


async def _connection(
    zones: Zones,
    connections: set[asyncio.Task[None]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    task = asyncio.current_task()
    assert task is not None
    try:
        if len(connections) < CONNECTIONS_MAX:
            connections.add(task)
            with suppress(TimeoutError, asyncio.IncompleteReadError, OSError):
                await _queries(zones, reader, writer)
    finally:
        connections.discard(task)
        writer.close()


async def _queries(zones: Zones, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(QUERIES_MAX):
        async with asyncio.timeout(IDLE_SECONDS_MAX):
            length = int.from_bytes(await reader.readexactly(2), "big")
            wire = await reader.readexactly(length)
        said = answer(wire, zones(), over_udp=False)
        if said is None:
            return
        writer.write(len(said).to_bytes(2, "big") + said)
        async with asyncio.timeout(IDLE_SECONDS_MAX):
            await writer.drain()
