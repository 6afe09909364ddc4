"""The least a relay can do: an aiohttp server that sends a POST on and streams the answer back. It counts nothing.

python -m bench.pass_through PORT UPSTREAM_URL
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web


def app(upstream: str) -> web.Application:
    sessions: list[aiohttp.ClientSession] = []

    async def passed(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"content-type": "application/json", "authorization": request.headers.get("authorization", "")}
        async with sessions[0].post(upstream + request.path, data=body, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def session(_: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
            sessions.append(opened)
            yield

    application = web.Application()
    application.router.add_post("/{path:.*}", passed)
    application.cleanup_ctx.append(session)
    return application


if __name__ == "__main__":
    web.run_app(
        app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        loop=uvloop.new_event_loop(),
        print=lambda *_: None,
    )
