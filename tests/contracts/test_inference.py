"""What every way to a vendor promises (ports/inference.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.machine_speed import patient
from tests.running import until
from tinyfat.drivers.inference.http import HttpInference
from tinyfat.drivers.inference.memory import MemoryInference, Scripted, Unreachable
from tinyfat.ports.inference import Call, Inference, VendorCut, VendorUnreachable, vendor_request_id

SECRET = "Bearer sk-planted"
PIECES = (b"data: one\n\n", b"data: two\n\n")
SECONDS_MAX = patient(5.0)


@dataclass(frozen=True, slots=True)
class Vendor:
    """A driver, and where each kind of vendor is for it."""

    driver: Inference
    url: Callable[[str], str]
    hung_up: Callable[[], Awaitable[bool]]


class Server:
    """Vendors on loopback: the path says how they behave."""

    def __init__(self) -> None:
        self.hung_up = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        kind = head.split()[1].decode().strip("/")
        try:
            await self._answer(kind, reader, writer)
            await writer.drain()
        except OSError:
            self.hung_up = True
        writer.close()

    async def _answer(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = {"busy": b"429 Too Many", "moved": b"302 Found"}.get(kind, b"200 OK")
        if kind == "mute":
            await self._until_gone(reader)
            return
        writer.write(b"HTTP/1.1 " + status + b"\r\nX-Request-Id: req_1\r\nRetry-After: 7\r\nLocation: /fine\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        if kind == "speechless":
            await writer.drain()
            await self._until_gone(reader)
        if kind in ("speechless", "dumb"):
            return
        if kind == "empty":
            writer.write(b"0\r\n\r\n")
            return
        for piece in PIECES:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        if kind == "cut":
            return
        if kind == "silent":
            await self._until_gone(reader)
            return
        writer.write(b"0\r\n\r\n")

    async def _until_gone(self, reader: asyncio.StreamReader) -> None:
        while await reader.read(1000):
            pass
        self.hung_up = True


@pytest.fixture(params=["http", "memory"])
async def vendor(request: pytest.FixtureRequest) -> AsyncIterator[Vendor]:
    if request.param == "memory":
        memory = _memory()

        async def closed() -> bool:
            return memory.closed > 0

        yield Vendor(memory, lambda kind: kind, closed)
        await memory.close()
        return
    vendors = Server()
    server = await asyncio.start_server(vendors.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    driver = HttpInference()

    async def hung_up() -> bool:
        return vendors.hung_up

    ports = {"nobody": 9}
    yield Vendor(driver, lambda kind: f"http://127.0.0.1:{ports.get(kind, port)}/{kind}", hung_up)
    await driver.close()
    server.close()
    await server.wait_closed()


def _memory() -> MemoryInference:
    headers = {"X-Request-Id": "req_1", "Retry-After": "7"}
    return MemoryInference({
        "fine": [Scripted(200, headers, PIECES)],
        "busy": [Scripted(429, headers, PIECES)],
        "moved": [Scripted(302, headers, PIECES)],
        "cut": [Scripted(200, headers, PIECES, cut=True)],
        "silent": [Scripted(200, headers, PIECES, cut=True)],
        "mute": [Unreachable()],
        "speechless": [Unreachable()],
        "dumb": [Scripted(200, headers, cut=True)],
        "empty": [Scripted(200, headers)],
    })  # fmt: skip


def _call(
    vendor: Vendor, kind: str, first_byte_seconds: float = SECONDS_MAX, idle_seconds: float = SECONDS_MAX
) -> Call:
    headers = {"authorization": SECRET, "content-type": "application/json"}
    return Call(vendor.url(kind), headers, b'{"model":"m"}', first_byte_seconds, idle_seconds)


@pytest.mark.parametrize(("kind", "status"), [("fine", 200), ("busy", 429), ("moved", 302)])
async def test_an_answer_of_any_status_is_handed_over_as_it_comes(vendor: Vendor, kind: str, status: int) -> None:
    answer = await vendor.driver.open(_call(vendor, kind))
    assert answer.status == status
    assert answer.headers["retry-after"] == "7"
    assert vendor_request_id(answer.headers) == "req_1"
    assert b"".join([piece async for piece in answer.pieces()]) == b"".join(PIECES)
    answer.close()
    answer.close()


@pytest.mark.parametrize("kind", ["nobody", "mute", "speechless", "dumb", "empty"])
async def test_no_answer_is_unreachable(vendor: Vendor, kind: str) -> None:
    with pytest.raises(VendorUnreachable) as unreachable:
        await vendor.driver.open(_call(vendor, kind, first_byte_seconds=0.2))
    assert "planted" not in str(unreachable.value)


@pytest.mark.parametrize("kind", ["cut", "silent"])
async def test_an_answer_that_does_not_end_is_cut_after_what_came(vendor: Vendor, kind: str) -> None:
    answer = await vendor.driver.open(_call(vendor, kind, idle_seconds=0.2))
    came: list[bytes] = []
    with pytest.raises(VendorCut):
        async for piece in answer.pieces():
            came.append(piece)
    assert b"".join(came) == b"".join(PIECES)
    answer.close()


async def test_hanging_up_reaches_the_vendor(vendor: Vendor) -> None:
    answer = await vendor.driver.open(_call(vendor, "silent"))
    async for _ in answer.pieces():
        break
    answer.close()
    await until(vendor.hung_up, SECONDS_MAX, "the vendor sees its client go")


def test_a_call_does_not_show_its_key() -> None:
    assert "planted" not in repr(Call("http://x", {"authorization": SECRET}, b"", 1, 1))
