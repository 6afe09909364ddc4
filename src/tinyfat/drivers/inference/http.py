"""Calls to vendors over HTTP. aiohttp's client: measured at a fifth of httpx2's cost for a streamed answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import aiohttp

from tinyfat.ports.inference import Answer, Call, VendorCut, VendorUnreachable

CONNECT_SECONDS_MAX = 10.0
CONNECTIONS_MAX = 2048
KEEPALIVE_SECONDS = 30.0
IDLE_SLACK = 0.02  # an answer that goes silent is cut this part of its patience early, at most
NO_LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX, sock_read=None)  # ours are below
PIECE_BYTES = 256 * 1024  # as much of an answer as waits for a slow client; then the vendor waits too


class HttpInference:
    """Made inside a running loop. It knows no proxy settings of the environment and follows no redirect."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEPALIVE_SECONDS),
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=PIECE_BYTES,
        )

    async def open(self, call: Call) -> Answer:
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(call.first_byte_seconds):
                response = await self._session.post(
                    call.url, data=call.body, headers=call.headers, timeout=NO_LIMITS, allow_redirects=False
                )
                first = await _first(response)
        except BaseException as error:
            if response is not None:
                response.close()
            if not isinstance(error, (aiohttp.ClientError, TimeoutError, OSError, ValueError)):
                raise
            # The error's own text may hold the URL and no more; the headers are never in it.
            raise VendorUnreachable(f"{type(error).__name__}: {str(error)[:200] or 'no answer in time'}") from error
        return _HttpAnswer(response, first, call.idle_seconds)

    async def close(self) -> None:
        await self._session.close()


class _HttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse, first: bytes, idle_seconds: float) -> None:
        self._response = response
        self._first = first
        self._idle_seconds = idle_seconds
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        content = self._response.content
        clock = asyncio.get_running_loop().time
        moved = clock()
        try:
            # One timer for the whole answer, moved on now and then: to move it costs as much as the piece.
            async with asyncio.timeout_at(moved + self._idle_seconds) as idle:
                yield self._first
                while piece := await content.readany():
                    yield piece
                    now = clock()
                    if now - moved > self._idle_seconds * IDLE_SLACK:
                        moved = now
                        idle.reschedule(now + self._idle_seconds)
        except TimeoutError as error:
            raise VendorCut(f"silent for {self._idle_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise VendorCut(f"{type(error).__name__}: {str(error)[:200]}") from error

    def close(self) -> None:
        self._response.close()


async def _first(response: aiohttp.ClientResponse) -> bytes:
    """Of the answer, what came with its head; where that is nothing and it is no error, what comes next. Raises
    ValueError where nothing does."""
    first = response.content.read_nowait()
    if not first and response.status < 400:
        first = await response.content.readany()
        if not first:
            raise ValueError("it ended before its first byte")
    return first
