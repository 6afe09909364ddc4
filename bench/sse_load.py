"""Streamed calls, as many at once as asked, on kept connections; the client is a protocol, so that it costs little.

python -m bench.sse_load URL KEY AT_ONCE SECONDS    prints {"rate": calls/s, "p50": ms, "p99": ms, "failed": n}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.figures import percentile

WARM_CALLS = 5  # of each connection, not counted
_END = b"0\r\n\r\n"


def request(url: str, key: str) -> bytes:
    parts = urlsplit(url)
    body = json.dumps(
        {
            "model": "main",
            "stream": True,
            "max_tokens": 100,
            "messages": [{"role": "system", "content": "Be short. " * 40}, {"role": "user", "content": "Count to 20."}],
        }
    ).encode()
    head = (
        f"POST {parts.path or '/v1/chat/completions'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Caller(asyncio.Protocol):
    def __init__(self, request: bytes, until: float) -> None:
        self.request, self.until = request, until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times: list[float] = []
        self.failed = 0
        self._calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._call()

    def _call(self) -> None:
        self._bytes: list[bytes] = []
        self._began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._bytes.append(data)
        tail = data if len(data) >= len(_END) else b"".join(self._bytes[-3:])
        if not tail.endswith(_END):
            return
        now = time.perf_counter()
        answer = b"".join(self._bytes)
        fine = answer.startswith(b"HTTP/1.1 200") and b"word18" in answer and b"[DONE]" in answer
        self._calls += 1
        if self._calls > WARM_CALLS:
            self.times.append(now - self._began)
            self.failed += not fine
        if now < self.until:
            self._call()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.failed += time.perf_counter() < self.until
        if not self.done.done():
            self.done.set_result(None)


async def load(url: str, key: str, at_once: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    until = time.perf_counter() + seconds
    wire = request(url, key)
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Caller(wire, until), parts.hostname, parts.port) for _ in range(at_once)
    ]
    callers = [caller for _, caller in made]
    await asyncio.wait([caller.done for caller in callers], timeout=seconds + 30)
    lasted = time.perf_counter() - began
    times = [spent * 1000 for caller in callers for spent in caller.times] or [0.0]
    calls = sum(len(caller.times) for caller in callers) + WARM_CALLS * at_once
    return {
        "rate": calls / lasted,
        "p50": percentile(times, 50),
        "p99": percentile(times, 99),
        "failed": sum(caller.failed for caller in callers),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(load(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))))
