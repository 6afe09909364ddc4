"""Sockets to listen on, and where others reach them."""

from __future__ import annotations

import socket

from tinyfat.settings import Address


class ListenFailed(Exception):
    """An address cannot be listened on."""


def bound(address: Address, setting: str) -> socket.socket:
    """A listening socket, or ListenFailed naming the setting."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ListenFailed(f"{setting}: {address} cannot be listened on: {error.strerror}.") from error
    return listener


def url_of(host: str, port: int) -> str:
    """Where boxes on this host and the command line reach us."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://{Address(local, port)}"
