"""Who may be connected: bounds in all and for each peer, before TLS and before a byte is read.

Sockets are accepted here, for every listener alike, and handed to the server's protocols: neither asyncio's servers nor
uvicorn's, aiohttp's and aiosmtpd's own bound what is open, and a peer in its TLS handshake they do not see at all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

HANDSHAKE_SECONDS_MAX = 15.0  # of TLS
BACKLOG = 1024  # the system's own queue
ACCEPT_PAUSE_SECONDS = 0.5  # where the system has no file for a connection, there is one soon
FILES_KEPT = 256  # for the database, the agents' programs and logs
LISTENERS = 5  # HTTP, SMTP, the relay; boxes and relay for servers: each has at most its part of the files
FILES_WANTED = 65536
PLACES_MIN = 16  # where there are hardly any files
IPV6_PREFIX = 64  # the least that one customer has (RFC 6177): their addresses are one peer
IPV6_SITE_PREFIX = 48  # the most: up to 65,536 peers
SITE_TIMES = 4  # as many as one peer has a site of theirs may have
KEPT_PART = 4  # a quarter of all is for this machine and the roomy networks, however many strangers come

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger(__name__)


def raise_file_limit() -> int:
    """As many open files as the system lets us have. What they are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, max(soft, FILES_WANTED))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower one of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def affordable(in_all: int) -> int:
    """Of one listener's connections so many that all listeners together leave files to the rest."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return in_all if soft == resource.RLIM_INFINITY else min(in_all, max(PLACES_MIN, (soft - FILES_KEPT) // LISTENERS))


def peer_of(address: object) -> str:
    """Whom a socket's address counts as: an IPv4 address, an IPv6 network of 64 bits, "" for this machine itself."""
    host = address[0] if isinstance(address, tuple) and address else ""
    try:
        found = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return ""
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return ""
    return str(found) if found.version == 4 else str(ipaddress.ip_network((int(found), IPV6_PREFIX), strict=False))


class Connections:
    """How many are open, by peer.

    This machine itself, and the `roomy` networks, have half of all at most, and a quarter that is theirs alone: behind
    loopback are all of its boxes, or a proxy that everybody comes through. Neither keeps the other out.
    """

    def __init__(self, in_all: int, of_peer: int, roomy: Sequence[Network] = ()) -> None:
        self.in_all, self.of_peer = in_all, of_peer
        self._roomy = tuple(roomy)
        self._open: Counter[str] = Counter()
        self._of_site: Counter[str] = Counter()
        self._count = self._strangers = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, peer: str) -> bool:
        """Whether there is a place; then it is taken."""
        if self._count >= self.in_all or self._open[peer] >= self._share(peer):
            return False
        if self._is_stranger(peer):
            if self._strangers >= self.in_all - self.in_all // KEPT_PART:
                return False
            if self._of_site[_site(peer)] >= SITE_TIMES * self.of_peer:
                return False
        self._change(peer, 1)
        return True

    def leave(self, peer: str) -> None:
        self._change(peer, -1)

    def _change(self, peer: str, by: int) -> None:
        self._count += by
        _add(self._open, peer, by)
        if self._is_stranger(peer):
            self._strangers += by
            _add(self._of_site, _site(peer), by)

    def _is_stranger(self, peer: str) -> bool:
        return bool(peer) and not self._is_roomy(peer)

    def _is_roomy(self, peer: str) -> bool:
        network = ipaddress.ip_network(peer)
        return any(network.version == own.version and network.overlaps(own) for own in self._roomy)

    def _share(self, peer: str) -> int:
        if not peer:
            return max(1, self.in_all // 2)
        return max(self.of_peer, self.in_all // 2) if self._is_roomy(peer) else self.of_peer


def _site(peer: str) -> str:
    """The IPv6 network of 48 bits that a peer is in; an IPv4 address is one by itself."""
    network = ipaddress.ip_network(peer)
    return peer if network.version == 4 else str(network.supernet(new_prefix=IPV6_SITE_PREFIX))


def _add(counts: Counter[str], name: str, by: int) -> None:
    counts[name] += by
    if not counts[name]:
        del counts[name]


class _Counted(socket.socket):
    """Its place is free again when it is closed, whoever closes it: protocols change (TLS, WebSockets), it does not."""

    left: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        self._leave()

    def detach(self) -> int:
        number = super().detach()
        self._leave()
        return number

    def _leave(self) -> None:
        if self.left is not None:
            left, self.left = self.left, None
            left()


class Door:
    """Accepts on one or more sockets and hands each connection to a protocol of `factory`.

    `refusal` is said, in clear, to whom there is no place for. A peer that does not finish its TLS handshake in time is
    closed.
    """

    def __init__(
        self, name: str, factory: Callable[[], asyncio.BaseProtocol], connections: Connections, refusal: bytes = b""
    ) -> None:
        self._name = name
        self._factory = factory
        self._refusal = refusal
        self.connections = connections
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Of the first socket."""
        return int(self._listeners[0].getsockname()[1])

    def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """On a socket that is bound; it is ours from now on."""
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._listeners.append(listener)
        self._go(self._accept(listener, tls))

    async def close(self) -> None:
        """No connection is made any more; those that are open are the protocols' to end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    def _go(self, work: Any) -> None:
        task = asyncio.create_task(work, name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("%s: no connection can be accepted just now: %s", self._name, error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            peer = peer_of(address)
            if not self.connections.enter(peer):
                self._refuse(accepted, tls)
                continue
            counted = _Counted(fileno=accepted.detach())
            counted.setblocking(False)
            counted.left = lambda peer=peer: self.connections.leave(peer)
            self._go(self._connect(counted, tls))

    def _refuse(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        with accepted, suppress(OSError):
            accepted.setblocking(False)
            if tls is None:
                accepted.send(self._refusal)

    async def _connect(self, accepted: _Counted, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        seconds = HANDSHAKE_SECONDS_MAX if tls else None
        try:
            await loop.connect_accepted_socket(self._factory, accepted, ssl=tls, ssl_handshake_timeout=seconds)
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            accepted.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            log.debug("%s: a peer did not connect: %s", self._name, error)
