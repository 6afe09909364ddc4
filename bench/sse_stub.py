"""A vendor as fast as asyncio goes: any POST is answered by a streamed chat of 20 chunks, each a write of its own.

python -m bench.sse_stub PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

CHUNKS = 20
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _chunk(body: dict[str, object]) -> bytes:
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench"}
    data = b"data: " + json.dumps({**head, **body}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _words(number: int) -> bytes:
    return _chunk({"choices": [{"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}]})


_END = _chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
_USAGE = _chunk(
    {"choices": [], "usage": {"prompt_tokens": 25, "completion_tokens": CHUNKS, "total_tokens": 25 + CHUNKS}}
)
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
PARTS = [_HEAD, *(_words(number) for number in range(CHUNKS - 1)), _END]


class Stub(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._taken = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._taken += data
        head, found, body = self._taken.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        self._taken = b""
        usage = b"include_usage" in body
        self._write(0, [*PARTS, _USAGE, _DONE] if usage else [*PARTS, _DONE])

    def _write(self, number: int, parts: list[bytes]) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(parts[number])
        if number + 1 < len(parts):
            self._loop.call_soon(self._write, number + 1, parts)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(loop), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
