"""HOST:PORT: where to listen, the sockets that do, and where others reach them."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(value: object) -> Address:
    """Raises ValueError, saying what one looks like."""
    if isinstance(value, Address):
        return value
    text = str(value)
    parts = urlsplit(f"//{text}")
    try:
        if parts.hostname and parts.port and not parts.path and not parts.username:
            return Address(parts.hostname, parts.port)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:2525")


class ListenFailed(Exception):
    """An address cannot be listened on."""


def bound(wanted: Address, setting: str) -> socket.socket:
    """A listening socket, or ListenFailed naming the setting."""
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((wanted.host, wanted.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ListenFailed(f"{setting}: {wanted} cannot be listened on: {error.strerror}.") from error
    return listener


async def bound_at(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that the host's name has, listening. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen()
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def url_of(host: str, port: int) -> str:
    """Where boxes on this host and the command line reach us."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://{Address(local, port)}"
