"""The vendors of an alias, none of which does the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import openai
import pytest

from tests.relay.relays import SECONDS_MAX, listening, relaying, target
from tests.running import until

BUSY = b'HTTP/1.1 429 Busy\r\nretry-after: 9\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n"busy"'
BUSY_SAYS_NOTHING = b"HTTP/1.1 429 Busy\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n"
AWAY = b"HTTP/1.1 503 Away\r\ncontent-length: 4\r\n\r\naway"
GONE = b"HTTP/1.1 500 Gone\r\ncontent-length: 4\r\n\r\ngone"
KEY_REFUSED = b"HTTP/1.1 401 No\r\nretry-after: 5\r\ncontent-length: 14\r\n\r\nunknown: sk-op"
NOBODY = b""


@pytest.mark.parametrize(
    ("answers", "status", "retry_after", "said"),
    [
        ([BUSY, NOBODY], 429, "9", b"busy"),
        ([BUSY, NOBODY, NOBODY], 429, "9", b"busy"),
        ([NOBODY, BUSY, NOBODY], 429, "9", b"busy"),
        ([BUSY_SAYS_NOTHING, NOBODY], 429, "9", b"The vendor answered 429"),
        ([AWAY, NOBODY], 503, None, b"away"),
        ([BUSY, AWAY], 429, "9", b"busy"),  # only one of them says when to come again
        ([AWAY, BUSY], 429, "9", b"busy"),
        ([GONE, AWAY], 503, None, b"away"),
        ([AWAY, KEY_REFUSED], 503, None, b"away"),
        ([KEY_REFUSED, NOBODY], 502, None, b"for the operator to mend"),
        ([NOBODY, KEY_REFUSED], 502, None, b"for the operator to mend"),
        ([NOBODY, NOBODY], 502, None, b"No vendor of this model answered"),
    ],
)
async def test_where_nobody_does_the_work_the_client_hears_what_is_of_most_use_to_it(
    answers: list[bytes], status: int, retry_after: str | None, said: bytes
) -> None:
    async with AsyncExitStack() as vendors:
        urls = [await vendors.enter_async_context(answering(answer)) for answer in answers]
        targets = [target(url, f"vendor-{number}") for number, (url, _) in enumerate(urls)]

        async def nobody_is_connected() -> bool:
            return not any(connections for _, connections in urls)

        async with relaying({"all": targets}) as relay:
            async with relay.openai() as client:
                with pytest.raises(openai.APIStatusError) as caught:
                    await client.chat.completions.create(model="all", messages=[{"role": "user", "content": "hello"}])
            got = caught.value.response
            assert (got.status_code, got.headers.get("retry-after")) == (status, retry_after)
            assert said in got.content and b"sk-op" not in got.content
            assert relay.ledger.calls == []
            assert (await relay.ledger.spend("ada")).reserved == 0
        await until(nobody_is_connected, SECONDS_MAX, "the relay left no connection behind")


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A vendor with one answer, or that hangs up: (its base URL, who is connected)."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        while answer and await reader.read(65536):
            pass
        writer.close()
        connections.remove(writer)

    listener = listening()
    async with await asyncio.start_server(serve, sock=listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", connections
