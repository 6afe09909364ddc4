"""Plain HTTP to a server on this machine, on the standard library alone; and a free port for one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 1024 * 1024
SECONDS_MAX = 10.0
PORTS_VARIABLE = "TINYFAT_PORTS"  # FIRST-LAST


def own_ports(environment: Mapping[str, str]) -> range:
    """Where no other box of this host may listen: between a look for a free port and a server on it, another box could
    take the place and hear what was meant for the server. (0,): any port will do. Raises ValueError."""
    said = environment.get(PORTS_VARIABLE, "")
    if not said:
        return range(1)
    first, last = map(int, said.split("-"))
    return range(first, last + 1)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago, of our own where we have such. Raises OSError."""
    ports = own_ports(os.environ)
    for port in random.sample(ports, len(ports)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            # As a server does: connections that ended a moment ago keep no port from it; a listener does.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = listener.getsockname()[1]
            return found
    raise OSError(f"none of the ports {ports.start} to {ports.stop - 1} is free")


async def http_get(
    base: str, path: str, *, bytes_max: int = BODY_BYTES_MAX, seconds_max: float = SECONDS_MAX
) -> tuple[int, bytes]:
    """Status and body, cut at `bytes_max`. `base` is any URL with host and port. Raises OSError, ValueError."""
    return await _http("GET", base, path, "", b"", bytes_max, seconds_max)


async def http_post(
    base: str, path: str, bearer: str, body: bytes, *, more: Mapping[str, str], bytes_max: int = BODY_BYTES_MAX,
    seconds_max: float,
) -> tuple[int, bytes]:  # fmt: skip
    """JSON to a server that asks for a key; else as `http_get`. `more`: headers."""
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json", "Content-Length": len(body)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **more}.items())
    return await _http("POST", base, path, lines, body, bytes_max, seconds_max)


async def _http(
    method: str, base: str, path: str, more: str, content: bytes, bytes_max: int, seconds_max: float
) -> tuple[int, bytes]:
    parts = urlsplit(base)
    if not path.startswith("/") or any(character.isspace() for character in path):
        raise ValueError(f"not a path: {path[:100]!r}")
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    async with asyncio.timeout(seconds_max):  # TimeoutError is an OSError
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES_MAX)
        try:
            # HTTP/1.0: the body ends where the connection does, and never comes in chunks.
            request = f"{method} {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n{more}\r\n"
            writer.write(request.encode("ascii") + content)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            return _status(head), await _body(reader, bytes_max)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ValueError("not an HTTP response") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _status(head: bytes) -> int:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ValueError("not an HTTP response")
    return int(words[1])


async def _body(reader: asyncio.StreamReader, bytes_max: int) -> bytes:
    body = bytearray()
    while len(body) < bytes_max and (part := await reader.read(min(65536, bytes_max - len(body)))):
        body += part
    return bytes(body)
