"""The box's forwarder: heads are judged and rewritten, bytes pass both ways, calls end with their caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.box.plane import until
from tests.machine_speed import patient
from tinyfat.box import forwarder as forwarding
from tinyfat.box.forwarder import CallRefused, ModelForwarder, Relay, naming, rewritten
from tinyfat.box.logbook import Logbook
from tinyfat.box.tls import client_context
from tinyfat.domain.link import ModelAccess

TOKEN = "token-of-this-box"
KEY = "tfk_key-of-the-agent"
RELAY = Relay("127.0.0.1", 8026, False, KEY)
STREAMED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class FakeRelay:
    """Keeps each request; answers what it is told, and then waits where `hold` says so."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.body_bytes = 0
        self.answer = STREAMED + b"data: 1\n\n"
        self.hold = False
        self.vanished = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(self.body_bytes)
        self.requests.append(head + body)
        writer.write(self.answer)
        await writer.drain()
        if self.hold:
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            self.vanished += 1
        writer.close()


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.turn: tuple[str, str] | None = None
        self.said: list[str] = []  # of its session, by each call
        self.logbook = Logbook(folder / "box.log")
        self.relay = FakeRelay()
        self.forwarder = ModelForwarder(TOKEN, self.whose_call, self.logbook, client_context(""))

    async def whose_call(self, said: str) -> tuple[str, str] | None:
        self.said.append(said)
        return self.turn

    async def open(self) -> None:
        await self.relay.open()
        await self.forwarder.open(self.folder / "model.port")
        self.forwarder.forward_to(self.model)

    @property
    def model(self) -> ModelAccess:
        return ModelAccess("openai-completions", self.relay.url, KEY, "main")

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.forwarder.port)

    async def ask(self, request: bytes) -> bytes:
        reader, writer = await self.dial()
        writer.write(request)
        async with asyncio.timeout(patient(10)):
            answer = await reader.read()
        writer.close()
        return answer


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.open()
    yield rig
    await rig.forwarder.close()
    await rig.relay.close()
    rig.logbook.close()


def post(body: bytes = b"", *more: str, token: str = TOKEN) -> bytes:
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *more]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def test_the_key_and_the_turn_are_added_and_the_answer_comes_as_it_is(rig: Rig) -> None:
    rig.turn = ("turn-1", "email:7 ü")
    rig.relay.body_bytes = 7
    answer = await rig.ask(post(b'{"a":1}', "x-tinyfat-turn: another", "Connection: keep-alive, x-odd", "x-odd: 1"))
    assert answer == rig.relay.answer
    head, _, body = rig.relay.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1" and body == b'{"a":1}'
    assert f"Authorization: Bearer {KEY}" in lines and "Connection: close" in lines
    assert [line for line in lines if line.startswith("x-")] == [
        "x-tinyfat-turn: turn-1", "x-tinyfat-conversation: email:7",
    ]  # fmt: skip
    assert TOKEN.encode() not in head


async def test_whose_call_it_is_hangs_on_what_it_says_of_its_session(rig: Rig) -> None:
    rig.turn = ("turn-1", "")
    await rig.ask(post(b"", "X-Session-Affinity:  one:0 "))
    await rig.ask(post(b"", "X-Session-Affinity: two", token="another"))  # nobody's business
    await rig.ask(post())
    assert rig.said == ["one:0", ""]
    assert all(b"\r\nx-tinyfat-turn: turn-1\r\n\r\n" in request for request in rig.relay.requests)


async def test_no_turn_is_named_where_it_cannot_be_told(rig: Rig) -> None:
    await rig.ask(post())
    assert b"x-tinyfat" not in rig.relay.requests[0]


@pytest.mark.parametrize("token", ["", "another", KEY, TOKEN + "x"])
async def test_whoever_does_not_show_the_boxs_token_gets_nowhere(rig: Rig, token: str) -> None:
    assert (await rig.ask(post(token=token))).startswith(b"HTTP/1.1 401 ")
    assert rig.relay.requests == []


async def test_a_runtime_that_goes_away_takes_its_call_with_it(rig: Rig) -> None:
    rig.relay.hold = True
    reader, writer = await rig.dial()
    writer.write(post())
    async with asyncio.timeout(patient(10)):
        assert await reader.readuntil(b"data: 1\n\n")
    writer.close()
    await until(lambda: rig.relay.vanished == 1, "the relay sees it")


async def test_an_answer_reaches_a_runtime_whose_body_the_relay_would_not_read(rig: Rig) -> None:
    rig.relay.answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    reader, writer = await rig.dial()
    writer.write(post(b"").replace(b"Content-Length: 0", b"Content-Length: 99999999"))
    async with asyncio.timeout(patient(10)):
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_long_chunked_body_passes_untouched(rig: Rig) -> None:
    chunks = b"".join(b"8000\r\n" + bytes([65 + n % 26]) * 0x8000 + b"\r\n" for n in range(40)) + b"0\r\n\r\n"
    rig.relay.body_bytes = len(chunks)
    request = post().replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + chunks
    assert await rig.ask(request) == rig.relay.answer
    assert rig.relay.requests[0].endswith(b"\r\n\r\n" + chunks)


async def test_a_second_request_on_the_connection_goes_nowhere(rig: Rig) -> None:
    rig.relay.body_bytes = 2
    await rig.ask(post(b"{}") + b"GET /v1/models HTTP/1.1\r\n\r\n")
    assert len(rig.relay.requests) == 1 and b"GET" not in rig.relay.requests[0]


async def test_a_relay_that_is_away_is_a_503_to_try_again(rig: Rig) -> None:
    rig.forwarder.forward_to(ModelAccess("openai-completions", "http://127.0.0.1:9/v1", KEY, "main"))
    answer = await rig.ask(post())
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 2" in answer
    assert "127.0.0.1:9 does not answer" in (rig.folder / "box.log").read_text()


async def test_another_key_counts_from_the_next_call_on(rig: Rig) -> None:
    before = rig.forwarder.access(rig.model)
    rotated = ModelAccess("openai-completions", rig.relay.url, "tfk_rotated", "main")
    rig.forwarder.forward_to(rotated)
    assert rig.forwarder.access(rotated) == before
    await rig.ask(post())
    assert b"Bearer tfk_rotated\r\n" in rig.relay.requests[0]


async def test_no_more_than_so_many_calls_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "CALLS_MAX", 1)
    rig.relay.hold = True
    reader, writer = await rig.dial()
    writer.write(post())
    await reader.readuntil(b"data: 1\n\n")
    assert (await rig.ask(post())).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_the_address_stays_after_a_restart_and_moves_where_it_is_taken(rig: Rig, tmp_path: Path) -> None:
    port = rig.forwarder.port
    await rig.forwarder.close()
    again = ModelForwarder(TOKEN, rig.whose_call, rig.logbook, client_context(""))
    await again.open(tmp_path / "model.port")
    assert again.port == port
    other = ModelForwarder(TOKEN, rig.whose_call, rig.logbook, client_context(""))
    await other.open(tmp_path / "model.port")
    assert other.port not in (0, port)
    for one in (again, other):
        await one.close()


GOOD = f"POST / HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n"


@pytest.mark.parametrize(
    "head",
    [
        "POST / HTTP/2\r\n", "POST http://elsewhere/ HTTP/1.1\r\n", "POST /\r\n", GOOD + "no colon\r\n",
        GOOD + " folded: 1\r\n", GOOD + "name : 1\r\n", GOOD + "a: b\nc: d\r\n",
        GOOD + "Content-Length: 1\r\nContent-Length: 1\r\n", GOOD + "Content-Length: +1\r\n",
        GOOD + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", GOOD + "Transfer-Encoding: gzip, chunked\r\n",
        "POST / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nAuthorization: Basic x\r\n",
        GOOD + "x-api-key: another\r\n",
    ],
)  # fmt: skip
def test_what_can_be_read_two_ways_or_shows_no_token_is_refused(head: str) -> None:
    with pytest.raises(CallRefused) as refused:
        rewritten((head + "\r\n").encode(), TOKEN, RELAY)
    assert refused.value.status in (400, 401) and KEY not in str(refused.value)


@given(st.binary(max_size=300))
def test_no_bytes_get_the_key_without_the_token(junk: bytes) -> None:
    try:
        head = rewritten(junk + b"\r\n\r\n", TOKEN, RELAY)
    except CallRefused:
        return
    assert KEY.encode() not in head.raw


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_turn_or_session_makes_a_header_of_its_own(turn: str, session: str) -> None:
    raw = naming((turn, session))
    assert raw.count(b"\r\n") == (2 if session else 1)
    assert raw.endswith(b"\r\n") and raw.replace(b"\r\n", b"").isascii()
    assert not raw.replace(b"\r\n", b"").translate(None, bytes(range(32, 127)))


async def test_a_vendors_long_limit_is_told_to_the_turn_and_not_to_the_runtime(rig: Rig) -> None:
    told: list[tuple[str, float]] = []
    rig.forwarder.on_limit = lambda turn, seconds: told.append((turn, seconds))
    rig.turn = ("turn-1", "")
    rig.relay.answer = b"HTTP/1.1 429 Too Many\r\nretry-after: 3600\r\ncontent-length: 4\r\n\r\nbusy"
    answer = await rig.ask(post())
    assert answer == b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\nx-should-retry: false\r\n\r\nbusy"
    assert told == [("turn-1", 3600.0)]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nbroken off", b"x" * 200_000])
async def test_an_answer_without_a_head_passes_as_it_is(rig: Rig, answer: bytes) -> None:
    rig.relay.answer = answer
    assert await rig.ask(post()) == answer
