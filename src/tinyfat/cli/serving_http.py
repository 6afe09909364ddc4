"""Our HTTP applications, served on sockets that are bound already."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from tinyfat.api.http_connection import HttpConnection
from tinyfat.cli.bounded_websocket import BoundedWebSocket
from tinyfat.domain.link import FRAME_BYTES_MAX
from tinyfat.engine.connections import Connections, Door, affordable

HTTP_SHUTDOWN_SECONDS_MAX = 3
KEEPALIVE_SECONDS = 5  # between requests
CONNECTIONS_MAX = 4096  # of one listener; this machine's own boxes, or a proxy before us, have half of them
CONNECTIONS_OF_PEER_MAX = 128
NO_PLACE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def http_served(
    name: str, app: FastAPI, listener: socket.socket, tls: ssl.SSLContext | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """The task ends early only where the server fails."""
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws=BoundedWebSocket,
        ws_max_size=FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
        timeout_keep_alive=KEEPALIVE_SECONDS,
        timeout_graceful_shutdown=HTTP_SHUTDOWN_SECONDS_MAX,
        server_header=False,
    )
    server = _Server(name, config, listener, tls)
    serving = asyncio.create_task(server.serve(), name=name)
    try:
        yield serving
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Connections come by a door of ours. Signals are ours to handle: HTTP is the last to go, since the boxes say their
    last words over it."""

    def __init__(self, name: str, config: uvicorn.Config, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._listener, self._tls = listener, tls
        places = Connections(affordable(CONNECTIONS_MAX), CONNECTIONS_OF_PEER_MAX)
        self._door = Door(name, self._connection, places, NO_PLACE)

    def _connection(self) -> HttpConnection:
        return HttpConnection(self.config, self.server_state, self.lifespan.state)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = []
        self._door.listen(self._listener, self._tls)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._door.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
