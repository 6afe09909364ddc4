"""Calls to vendors over real sockets: which connection a call goes over, TLS, and what is never sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import certificate
from tests.machine_speed import patient
from tests.running import until
from tinyfat.drivers.inference.http import HttpInference
from tinyfat.ports.inference import Call, VendorCut, VendorUnreachable

SECONDS_MAX = patient(5.0)


class Vendor:
    """It answers every call, and knows what was asked on which connection."""

    def __init__(self) -> None:
        self.heads: list[list[bytes]] = []  # of each connection
        self.open = 0
        self.together = asyncio.Barrier(1)
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads: list[bytes] = []
        self.heads.append(heads)
        self.open += 1
        self._writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                await reader.readexactly(2)
                await self.together.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        except (asyncio.IncompleteReadError, OSError):
            pass
        self.open -= 1
        writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def none_open(self) -> bool:
        return self.open == 0


@asynccontextmanager
async def listening(vendor: Vendor, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(vendor.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        vendor.hang_up()
        server.close()
        await server.wait_closed()


async def ask(driver: HttpInference, url: str, headers: Mapping[str, str] | None = None) -> bytes:
    answer = await driver.open(Call(url, headers or {}, b"{}", SECONDS_MAX, SECONDS_MAX))
    body = b"".join([piece async for piece in answer.pieces()])
    answer.close()
    return body


async def test_calls_that_follow_each_other_go_over_one_connection() -> None:
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor) as port:
        for _ in range(3):
            assert await ask(driver, f"http://127.0.0.1:{port}/v1/x?a=b c", {"x-a": "é"}) == b"hi"
        await driver.close()
        await until(vendor.none_open, SECONDS_MAX, "the connections are closed")
    [heads] = vendor.heads
    assert len(heads) == 3
    assert heads[0].startswith(f"POST /v1/x?a=b%20c HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n".encode())
    assert "x-a: é\r\n".encode() in heads[0] and b"content-length: 2\r\n" in heads[0]


async def test_calls_at_once_have_connections_of_their_own_and_share_them_afterwards() -> None:
    vendor, driver = Vendor(), HttpInference()
    vendor.together = asyncio.Barrier(3)
    async with listening(vendor) as port:
        for _ in range(2):
            assert await asyncio.gather(*(ask(driver, f"http://127.0.0.1:{port}/") for _ in range(3))) == [b"hi"] * 3
        assert [len(heads) for heads in vendor.heads] == [2, 2, 2]
        await driver.close()


async def test_a_kept_connection_that_the_vendor_closed_is_not_used() -> None:
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor) as port:
        await ask(driver, f"http://127.0.0.1:{port}/")
        vendor.hang_up()

        async def forgotten() -> bool:
            return not driver._kept

        await until(forgotten, SECONDS_MAX, "the closed connection is forgotten")
        assert await ask(driver, f"http://127.0.0.1:{port}/") == b"hi"
        await driver.close()
    assert len(vendor.heads) == 2


async def test_a_kept_connection_that_is_being_closed_is_not_used() -> None:
    """Between the vendor's end and the loop's word of it, a call may begin."""
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor) as port:
        await ask(driver, f"http://127.0.0.1:{port}/")
        [[connection]] = driver._kept.values()
        connection.transport.close()
        assert await ask(driver, f"http://127.0.0.1:{port}/") == b"hi"
        await driver.close()
    assert len(vendor.heads) == 2


async def test_a_closed_answer_gives_nothing_of_the_next_call() -> None:
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor) as port:
        call = Call(f"http://127.0.0.1:{port}/", {}, b"{}", SECONDS_MAX, SECONDS_MAX)
        first = await driver.open(call)
        pieces = first.pieces()
        assert await anext(pieces) == b"hi"
        first.close()
        second = await driver.open(call)
        with pytest.raises(VendorCut, match="closed"):
            await anext(pieces)
        second.close()
        await driver.close()
    assert [len(heads) for heads in vendor.heads] == [2]


async def test_nothing_is_kept_once_it_is_closed() -> None:
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor) as port:
        answer = await driver.open(Call(f"http://127.0.0.1:{port}/", {}, b"{}", SECONDS_MAX, SECONDS_MAX))
        await driver.close()
        assert [piece async for piece in answer.pieces()] == [b"hi"]
        answer.close()
        await until(vendor.none_open, SECONDS_MAX, "the connection is closed")


async def test_calls_at_once_share_one_lookup_of_their_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    vendor, driver, loop = Vendor(), HttpInference(), asyncio.get_running_loop()
    vendor.together = asyncio.Barrier(3)
    found, lookups = loop.getaddrinfo, []

    async def counted(host: str, port: int, **how: Any) -> Any:
        lookups.append(host)
        return await found(host, port, **how)

    monkeypatch.setattr(loop, "getaddrinfo", counted)
    async with listening(vendor) as port:
        calls = [asyncio.create_task(ask(driver, f"http://127.0.0.1:{port}/")) for _ in range(4)]
        while not lookups:
            await asyncio.sleep(0)
        calls[0].cancel()  # the others need what it began
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError) and answers[1:] == [b"hi"] * 3
        await driver.close()
    assert len(lookups) == 1 and not driver._lookups


async def test_a_call_that_is_cancelled_leaves_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever step: a socket that the loop still watches would be the next connection's, too."""
    made = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor, made.server()) as port:
        url = f"https://localhost:{port}/"
        for steps in range(60):
            call = asyncio.create_task(ask(driver, url))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
            assert (await asyncio.gather(call, return_exceptions=True))[0].__class__ in (bytes, asyncio.CancelledError)
        assert await ask(driver, url) == b"hi"
        assert driver._kept_count == sum(map(len, driver._kept.values()))
        await driver.close()
        await until(vendor.none_open, SECONDS_MAX, "the connections are closed")


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\n", "a\r", "a\0", "\ud800"])
async def test_a_header_that_would_be_two_is_not_sent(value: str) -> None:
    vendor, driver = Vendor(), HttpInference()
    async with listening(vendor) as port:
        with pytest.raises(VendorUnreachable) as refused:
            await ask(driver, f"http://127.0.0.1:{port}/", {"authorization": value})
        await driver.close()
    assert vendor.heads == [] and value not in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://example.org/", "https:///nowhere", "http://[::1", "http://a:99999/", "x"])
async def test_what_is_no_url_is_unreachable(url: str) -> None:
    driver = HttpInference()
    with pytest.raises(VendorUnreachable):
        await ask(driver, url)
    await driver.close()


async def test_a_vendor_is_who_its_certificate_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificate(tmp_path)
    stranger = HttpInference()
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    trusting = HttpInference()
    vendor = Vendor()
    async with listening(vendor, made.server()) as port:
        assert await ask(trusting, f"https://localhost:{port}/") == b"hi"
        with pytest.raises(VendorUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(stranger, f"https://localhost:{port}/")
        await trusting.close()
        await stranger.close()
    assert [len(heads) for heads in vendor.heads if heads] == [1]
