"""A vendor's bytes, however they come: the connection that reads them, without a network (RFC 9112)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine_speed import patient
from tinyfat.drivers.inference.connection import (
    FRAME_BYTES_MAX,
    PIECE_COST,
    PROVISIONAL_MAX,
    UNPACKED_BYTES_MAX,
    UNREAD_BYTES_MAX,
    Connection,
)
from tinyfat.ports.inference import VendorCut

SECONDS_MAX = 5.0
PIECE_BYTES = 16 * 1024
BODY = b"data: one\n\ndata: two\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: req_1\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    return CHUNKED + b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailer)


def packed(body: bytes, more: bytes = b"") -> bytes:
    return counted(gzip.compress(body) + more, b"Content-Encoding: gzip\r\n")


def growing(size: int, pieces: int) -> bytes:
    """Pieces in one packet, each of which unpacks to `size` bytes."""
    packer = zlib.compressobj()
    chunks = [packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH) for _ in range(pieces)]
    head = HEAD + b"Transfer-Encoding: chunked\r\nContent-Encoding: deflate\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def counted(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class Wire(asyncio.Transport):
    """What a connection writes, and whether it reads."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.written = b""
        self.reading = True
        self.aborted = False
        self.unsent = 0

    def writelines(self, list_of_data: Sequence[bytes]) -> None:  # type: ignore[override]
        self.written += b"".join(list_of_data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.connection.connection_lost(None)


class Line:
    """A connection on a wire, and a call under way on it."""

    def __init__(self) -> None:
        self.gone = 0
        self.connection = Connection(self._gone)
        self.wire = Wire(self.connection)
        self.connection.connection_made(self.wire)
        self.call()

    def call(self, seconds: float = SECONDS_MAX) -> None:
        self.connection.send(b"POST / HTTP/1.1\r\n\r\n", b"{}", asyncio.get_running_loop().time() + seconds)

    async def answer(self) -> bytes:
        await self.connection.head()
        pieces: list[bytes] = []
        while piece := await self.connection.read():
            pieces.append(piece)
        return b"".join(pieces)

    def _gone(self, connection: Connection) -> None:
        assert connection is self.connection
        self.gone += 1


async def read(*pieces: bytes, closed: bool = False) -> tuple[Line, bytes]:
    line = Line()
    for piece in pieces:
        line.connection.data_received(piece)
    if closed:
        line.wire.abort()
    async with asyncio.timeout(patient(SECONDS_MAX)):
        return line, await line.answer()


@given(st.lists(st.integers(0, 300), max_size=12), st.booleans(), st.binary(max_size=200))
def test_it_makes_no_difference_where_the_network_cuts(cuts: list[int], by_chunks: bool, body: bytes) -> None:
    whole = chunked(body) if by_chunks else counted(body)
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[start:end] for start, end in pairwise(ends)]
    line, found = asyncio.run(read(*pieces))
    assert found == body and line.connection.headers["x-request-id"] == "req_1"


@given(st.binary(max_size=400), st.integers(0, 400))
def test_no_bytes_do_more_than_break_the_connection(noise: bytes, at: int) -> None:
    whole = chunked(BODY, b"X-Trailer: 1\r\n")
    bent = whole[:at] + noise + whole[at:]

    async def cut() -> None:
        with contextlib.suppress(VendorCut):
            await read(bent, closed=True)

    asyncio.run(cut())


async def test_a_connection_is_used_again() -> None:
    line, found = await read(chunked(BODY))
    assert found == BODY and line.connection.rest()
    line.call()
    line.connection.data_received(counted(b"again"))
    assert await line.answer() == b"again" and line.connection.rest()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(counted(BODY, b"Connection: close\r\n"), id="the vendor closes"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", id="an old vendor"),
        pytest.param(counted(BODY) + b"HTTP/1.1 200 OK\r\n", id="more than one answer"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", id="half an answer"),
    ],
)
async def test_a_connection_is_not_used_again(answer: bytes) -> None:
    line = Line()
    line.connection.data_received(answer)
    await line.connection.head()
    await line.connection.read()
    assert not line.connection.rest() and line.wire.aborted and line.gone == 1


async def test_an_answer_before_all_was_asked_ends_the_connection() -> None:
    line, _ = await read(counted(b"too large"))
    line.wire.unsent = 1
    assert not line.connection.rest()


async def test_what_comes_unasked_ends_the_connection() -> None:
    line, _ = await read(counted(BODY))
    assert line.connection.rest()
    line.connection.data_received(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    assert line.wire.aborted and line.gone == 1


async def test_provisional_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    line, found = await read(b"HTTP/1.1 100 Continue\r\n\r\n", hints + counted(BODY))
    assert found == BODY and line.connection.status == 200 and "link" not in line.connection.headers
    assert line.connection.rest()


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    _, found = await read(HEAD + b"\r\n" + BODY, closed=True)
    assert found == BODY


async def test_what_was_packed_and_broke_off_with_the_connection_is_cut() -> None:
    with pytest.raises(VendorCut, match="closed"):
        await read(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY)[:-1], closed=True)


async def test_what_the_vendor_closed_is_not_closed_again() -> None:
    """asyncio's transport raises AttributeError where it is."""
    line = Line()
    line.connection.connection_lost(None)
    line.connection.close()
    assert not line.wire.aborted and line.gone == 1


async def test_what_is_closed_keeps_nothing_and_gives_nothing() -> None:
    line = Line()
    line.connection.data_received(CHUNKED + b"5\r\nhello\r\n")
    line.connection.close()
    with pytest.raises(VendorCut, match="closed"):
        await line.connection.read()


async def test_a_connection_is_not_used_again_while_somebody_reads_its_answer() -> None:
    """He would read the next call's."""
    line = Line()
    line.connection.data_received(CHUNKED + b"5\r\nhello\r\n")
    assert await line.connection.read() == b"hello"
    reading = asyncio.create_task(line.connection.read())
    await asyncio.sleep(0)
    line.connection.data_received(b"0\r\n\r\n")
    assert not line.connection.rest() and await reading == b""


async def test_an_answer_that_broke_off_is_cut_after_what_came() -> None:
    line = Line()
    line.connection.data_received(CHUNKED + b"5\r\nhello\r\n")
    line.wire.abort()
    assert await line.connection.head() == 200 and await line.connection.read() == b"hello"
    with pytest.raises(VendorCut, match="closed"):
        await line.connection.read()


async def test_what_nobody_asked_to_be_packed_is_unpacked() -> None:
    for packed, coding in ((gzip.compress(BODY), b"gzip"), (zlib.compress(BODY), b"deflate")):
        _, found = await read(counted(packed, b"Content-Encoding: %s\r\n" % coding))
        assert found == BODY


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (counted(gzip.compress(bytes(32 << 20)), b"Content-Encoding: gzip\r\n"), "unpacks to over"),
        (growing(UNPACKED_BYTES_MAX - 1, 3), "unpacks to over"),
        (packed(BODY, b"more"), "more follows"),
        (packed(BODY, gzip.compress(BODY)), "more follows"),
        (counted(gzip.compress(BODY)[:-1], b"Content-Encoding: gzip\r\n"), "broke off"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "framed as"),
        (counted(b"not packed", b"Content-Encoding: gzip\r\n"), "no HTTP"),
        (counted(BODY, b"Content-Encoding: br\r\n"), "nobody asked for"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "no HTTP"),
        (HEAD + b"X-Long: " + b"x" * (2 * FRAME_BYTES_MAX), "over"),
        (CHUNKED + b"1;" + b"x" * (2 * FRAME_BYTES_MAX), "over"),
        (CHUNKED + b"0\r\nX-Trailer: " + b"x" * (2 * FRAME_BYTES_MAX), "over"),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "no HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (PROVISIONAL_MAX + 1) + counted(BODY), "provisional"),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * (2 * PROVISIONAL_MAX), "provisional"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nhi", "no HTTP"),
        (HEAD + b"Content-Length: -1\r\n\r\nhi", "no HTTP"),
        (HEAD + b"Content-Length: %d\r\n\r\nhi" % 10**30, "no HTTP"),
        (CHUNKED + b"f" * 20 + b"\r\n", "no HTTP"),
        (b"\r\n" * FRAME_BYTES_MAX, "over"),
    ],
)
async def test_what_is_no_answer_is_cut(answer: bytes, why: str) -> None:
    line = Line()
    for start in range(0, len(answer), PIECE_BYTES):
        if not line.wire.aborted:
            line.connection.data_received(answer[start : start + PIECE_BYTES])
    with pytest.raises(VendorCut, match=why):
        await line.answer()
    assert line.wire.aborted


async def test_as_many_provisional_answers_as_may_be_are_passed_over() -> None:
    line, found = await read(b"HTTP/1.1 100 Continue\r\n\r\n" * PROVISIONAL_MAX + counted(BODY))
    assert found == BODY and line.connection.rest()
    line.connection.send(b"", b"", asyncio.get_running_loop().time() + patient(SECONDS_MAX))
    line.connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" + counted(BODY))  # each call has as many
    assert await line.connection.head() == 200


async def test_small_pieces_that_nobody_reads_make_the_vendor_wait_too() -> None:
    """Each is an object of its own: what they take is not what they carry."""
    line = Line()
    line.connection.data_received(CHUNKED + b"2\r\nhi\r\n" * (UNREAD_BYTES_MAX // PIECE_COST))
    assert not line.wire.reading


async def test_a_slow_client_makes_the_vendor_wait() -> None:
    line = Line()
    size = UNREAD_BYTES_MAX + 1
    line.connection.data_received(HEAD + b"Content-Length: %d\r\n\r\n" % (size + 5) + b"x" * size)
    assert not line.wire.reading
    assert len(await line.connection.read()) == size and line.wire.reading


async def test_silence_is_bounded_before_the_first_piece_and_between_two() -> None:
    line = Line()
    line.call(0.05)
    with pytest.raises(VendorCut, match="silent"):
        await line.connection.head()
    line = Line()
    line.connection.data_received(CHUNKED + b"5\r\nhello\r\n")
    line.connection.wait_at_most(0.05)
    assert await line.connection.read() == b"hello"
    with pytest.raises(VendorCut, match="silent"):
        await line.connection.read()


async def test_a_vendor_that_only_clears_its_throat_is_silent() -> None:
    """Provisional answers do not move the bound on the first piece."""
    line = Line()
    line.call(0.1)

    async def clear() -> None:
        while not line.wire.aborted:
            line.connection.data_received(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.005)  # so that PROVISIONAL_MAX is far off

    clearing = asyncio.create_task(clear())
    with pytest.raises(VendorCut, match="silent"):
        await line.connection.head()
    await clearing


async def test_bytes_that_are_no_piece_are_silence() -> None:
    line = Line()
    line.connection.data_received(CHUNKED + b"5\r\nhello\r\n5;")
    line.connection.wait_at_most(0.02)
    assert await line.connection.read() == b"hello"

    async def drip() -> None:
        for _ in range(FRAME_BYTES_MAX - 100):
            line.connection.data_received(b"x")
            await asyncio.sleep(0)

    dripping = asyncio.create_task(drip())
    with pytest.raises(VendorCut, match="silent"):
        await line.connection.read()
    assert dripping.cancel(), "it was cut while bytes came"
