"""Serve a stand-in's app at an address, for as long as it is wanted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5
_LOOK_SECONDS = 0.01


@asynccontextmanager
async def served(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Its URL, without a path; port 0 takes a free one. Raises OSError where the address cannot be taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle on for what it accepts: 40 ms on every second answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_SECONDS_MAX, lifespan="on"
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while not server.started and not serving.done():  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
            if serving.done():
                raise OSError(f"The stand-in did not start at {host}:{port}; its log says why.")
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Leaves the process's signals to whoever started us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
