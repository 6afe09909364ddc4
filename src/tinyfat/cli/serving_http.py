"""Our HTTP applications, served on sockets that are bound already."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from tinyfat.domain.link import FRAME_BYTES_MAX

HTTP_SHUTDOWN_SECONDS_MAX = 3


@asynccontextmanager
async def http_served(
    name: str, app: FastAPI, listener: socket.socket, tls: ssl.SSLContext | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """The task ends early only where the server fails."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=HTTP_SHUTDOWN_SECONDS_MAX,
        server_header=False,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=name)
    try:
        yield serving
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Signals are ours to handle: HTTP is the last to go, since the boxes say their last words over it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
