"""The runtime's one model address: loopback on this machine, forwarded to the relay.

The runtime gets a token of this box alone; here the relay's key takes its place, so that a key which leaks with a
transcript opens nothing anywhere, and a new key or another relay needs no restart of the runtime. One call a
connection: its head is rewritten, and from then on bytes pass in both directions until the relay ends the answer. A
runtime that goes away takes its call with it. On the standard library alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tinyfat.box.logbook import Logbook
from tinyfat.box.runtimes.loopback import free_port, own_ports
from tinyfat.box.vendor_limits import told_to_runtime
from tinyfat.domain.link import ModelAccess

HEAD_BYTES_MAX = 64 * 1024
HEAD_SECONDS_MAX = 30.0
DIAL_SECONDS_MAX = 10.0
CALL_SECONDS_MAX = 3700.0  # the relay ends a call after an hour
CALLS_MAX = 64  # at once
CONNECTIONS_MAX = 128  # what is more is closed unread
LINGER_SECONDS_MAX = 1.0
PIECE_BYTES = 64 * 1024
CLOSE_SECONDS_MAX = 2.0
RETRY_SECONDS = 2
TURN_HEADER, CONVERSATION_HEADER = "x-tinyfat-turn", "x-tinyfat-conversation"
SESSION_HEADER = "x-session-affinity"  # what OpenClaw and others say of the session a call is of

# Of one connection, not of the call (RFC 9110 7.6.1); and what is ours to say.
_NOT_PASSED = frozenset(
    ("connection", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "te", "trailer", "host")
)
_UNCOUNTED = -1  # bytes of a chunked body

WhoseCall = Callable[[str], Awaitable[tuple[str, str] | None]]


class CallRefused(Exception):
    """The call goes nowhere; `status` and the text are for the runtime."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, slots=True)
class Relay:
    host: str
    port: int
    tls: bool
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head as it goes to the relay, but for the turn's name and the blank line that ends it; what it says
    of its session; how many bytes of body follow it (-1: chunked)."""

    raw: bytes = field(repr=False)
    session: str
    body_bytes: int


class ModelForwarder:
    def __init__(self, token: str, whose_call: WhoseCall, logbook: Logbook, tls: ssl.SSLContext) -> None:
        """`token` is what the runtime shows here. `whose_call`: the (id, session) of the turn that makes a call, from
        what the call says of its session. `tls`: for a relay at https."""
        self._token = token
        self._whose_call = whose_call
        self._logbook = logbook
        self._tls = tls
        self._relay: Relay | None = None
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.on_limit: Callable[[str, float], None] | None = None  # (a turn, as `whose_call` names it; seconds)
        self.port = 0

    async def open(self, port_file: Path) -> None:
        """At the port of the last time where it is free: what outlived a killed box still knows it. Raises OSError."""
        kept, own = _kept_port(port_file), own_ports(os.environ)
        try:
            self._server = await self._listen(kept if kept in own or own == range(1) else free_port())
        except OSError:
            self._server = await self._listen(free_port())
        self.port = self._server.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):  # a full disk: the next box takes another port
            port_file.write_text(f"{self.port}\n", "ascii")

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def access(self, model: ModelAccess) -> ModelAccess:
        """What the runtime is told in place of `model`: always the same while this box's folder lives."""
        url = f"http://127.0.0.1:{self.port}{urlsplit(model.url).path}"
        return ModelAccess(model.api, url, self._token, model.model)

    def forward_to(self, model: ModelAccess) -> None:
        """From the next call on."""
        parts = urlsplit(model.url)
        tls = parts.scheme == "https"
        self._relay = Relay(parts.hostname or "", parts.port or (443 if tls else 80), tls, model.key)

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._begin, "127.0.0.1", port, limit=HEAD_BYTES_MAX)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="model call")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                await self._call(reader, writer)
        except CallRefused as refused:
            with contextlib.suppress(OSError):
                writer.write(_refusal(refused.status, str(refused)))
                await writer.drain()
                await _linger(reader, writer)
        except OSError as error:  # TimeoutError is one
            self._logbook.box(f"a call to the model broke off: {error or type(error).__name__}")
        finally:
            await _close(writer)

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._calls) > CONNECTIONS_MAX:
            return
        if len(self._calls) > CALLS_MAX:
            raise CallRefused(503, f"More than {CALLS_MAX} calls to the model at once; try again in a moment.")
        raw = await _read_head(reader)
        if raw is None:
            return
        relay = self._relay
        if relay is None:
            raise CallRefused(503, "The box does not yet know where its model is; try again in a moment.")
        head = rewritten(raw, self._token, relay)
        turn = await self._whose_call(head.session)
        relay_reader, relay_writer = await self._dial(relay)
        try:
            relay_writer.write(head.raw + naming(turn) + b"\r\n")
            limited = partial(self._limited, turn[0] if turn else "")
            await _pass_both_ways(reader, writer, relay_reader, relay_writer, head.body_bytes, limited)
        finally:
            await _close(relay_writer)

    def _limited(self, turn: str, head: bytes) -> bytes:
        """The answer's head as the runtime gets it; the turn hears of a limit of the vendor's that lasts."""
        told, seconds = told_to_runtime(head, time.time())
        if seconds and self.on_limit is not None:
            self._logbook.box(f"the model's vendor lets no calls through for {seconds:.0f} s")
            self.on_limit(turn, seconds)
        return told

    async def _dial(self, relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(DIAL_SECONDS_MAX):
                tls = self._tls if relay.tls else None
                return await asyncio.open_connection(relay.host, relay.port, ssl=tls, limit=PIECE_BYTES)
        except OSError as error:
            self._logbook.box(f"the relay at {relay.host}:{relay.port} does not answer: {error}")
            raise CallRefused(503, "The relay does not answer; try again in a moment.") from None


def rewritten(raw: bytes, token: str, relay: Relay) -> Head:
    """The head for the relay. Pure. Raises CallRefused for what is no HTTP/1 request, or does not show `token`."""
    request_line, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = request_line.split(" ")
    readable = len(words) == 3 and request_line.isprintable() and words[1].startswith("/")
    if not readable or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise CallRefused(400, "This is not an HTTP/1.1 request.")
    headers = [_header(line) for line in lines]
    dropped = _NOT_PASSED | {
        word.strip().lower() for name, value in headers if name.lower() == "connection" for word in value.split(",")
    }
    passed = [request_line, f"Host: {_host(relay)}", "Connection: close"]
    shown = False
    for name, value in headers:
        folded = name.lower()
        if folded in ("authorization", "x-api-key"):
            scheme, given = ("", value) if folded == "x-api-key" else _bearer(value)
            if not hmac.compare_digest(given.encode(), token.encode()):
                raise CallRefused(401, "This is not the key that this agent's runtime was given.")
            passed.append(f"{name}: {scheme}{relay.key}")
            shown = True
        elif folded not in dropped and not folded.startswith("x-tinyfat-"):
            passed.append(f"{name}: {value}")
    if not shown:
        raise CallRefused(401, "Show the key that this agent's runtime was given.")
    session = next((value for name, value in headers if name.lower() == SESSION_HEADER), "")
    return Head("\r\n".join([*passed, ""]).encode("latin-1"), session, _body_bytes(headers))


def naming(turn: tuple[str, str] | None) -> bytes:
    """The lines of a head that name the turn (its id, its session). Pure."""
    if turn is None:
        return b""
    lines = [f"{TURN_HEADER}: {_word(turn[0])}", *([f"{CONVERSATION_HEADER}: {_word(turn[1])}"] if turn[1] else [])]
    return "\r\n".join([*lines, ""]).encode("ascii")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    # RFC 9112 5.1: no blank before the colon; a line that begins with one is an obsolete fold.
    if not colon or not name or name != name.strip() or "\r" in line or "\n" in line or "\0" in line:
        raise CallRefused(400, "A header of the request cannot be read.")
    return name, value.strip()


def _bearer(value: str) -> tuple[str, str]:
    kind, _, given = value.partition(" ")
    return (f"{kind} ", given.strip()) if kind.lower() == "bearer" else ("Bearer ", "")


def _host(relay: Relay) -> str:
    name = f"[{relay.host}]" if ":" in relay.host else relay.host
    return name if relay.port == (443 if relay.tls else 80) else f"{name}:{relay.port}"


def _word(text: str) -> str:
    """An id in a header: a session's name may be anything."""
    return "".join(letter for letter in text if "!" <= letter <= "~")


def _body_bytes(headers: list[tuple[str, str]]) -> int:
    """RFC 9112 6.3: what could be read two ways is refused."""
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    codings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
    if codings:
        if codings != ["chunked"] or lengths:
            raise CallRefused(400, "The request's length cannot be told.")
        return _UNCOUNTED
    if len(lengths) > 1 or (lengths and not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) <= 12)):
        raise CallRefused(400, "The request's length cannot be told.")
    return int(lengths[0]) if lengths else 0


async def _read_head(reader: asyncio.StreamReader) -> bytes | None:
    """None where the connection ends without one."""
    try:
        async with asyncio.timeout(HEAD_SECONDS_MAX):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise CallRefused(431, f"The request's head is over {HEAD_BYTES_MAX} bytes.") from None
    except (asyncio.IncompleteReadError, OSError):
        return None


async def _pass_both_ways(
    runtime_in: asyncio.StreamReader,
    runtime_out: asyncio.StreamWriter,
    relay_in: asyncio.StreamReader,
    relay_out: asyncio.StreamWriter,
    body_bytes: int,
    answer_head: Callable[[bytes], bytes],
) -> None:
    """Until the relay ends its answer, or the runtime goes away."""
    up = asyncio.create_task(_upload(runtime_in, relay_out, body_bytes))
    down = asyncio.create_task(_download(relay_in, runtime_out, answer_head))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and not up.result():
            await down
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
    if down.done() and not down.cancelled() and (error := down.exception()):
        raise error


async def _upload(runtime: asyncio.StreamReader, relay: asyncio.StreamWriter, body_bytes: int) -> bool:
    """True: the runtime went away. False: the relay takes no more, and may be answering why."""
    left = body_bytes
    while True:
        try:
            piece = await runtime.read(PIECE_BYTES)
        except OSError:
            return True
        if not piece:
            return True
        # What comes after the body is another call, which this connection does not carry.
        wanted = piece if body_bytes == _UNCOUNTED else piece[:left]
        left -= len(wanted)
        if not wanted:
            continue
        try:
            relay.write(wanted)
            await relay.drain()
        except OSError:
            return False


async def _download(
    relay: asyncio.StreamReader, runtime: asyncio.StreamWriter, answer_head: Callable[[bytes], bytes]
) -> None:
    try:
        runtime.write(answer_head(await relay.readuntil(b"\r\n\r\n")))
        await runtime.drain()
    except asyncio.IncompleteReadError as broken:
        runtime.write(broken.partial)
    except asyncio.LimitOverrunError:
        pass  # no head of ours; it passes as it is
    while piece := await relay.read(PIECE_BYTES):
        runtime.write(piece)
        await runtime.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closed with bytes unread, a connection is reset, and the other side may never see the answer (RFC 9112 9.6)."""
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS_MAX):
            while await reader.read(PIECE_BYTES):
                pass


async def _close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            writer.close()
            await writer.wait_closed()


def _refusal(status: int, words: str) -> bytes:
    """As both vendors' clients read an error."""
    body = json.dumps({"type": "error", "error": {"type": "api_error", "message": words}}).encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    retry = f"Retry-After: {RETRY_SECONDS}\r\n" if status == 503 else ""
    return f"{head}{retry}Connection: close\r\n\r\n".encode("ascii") + body


def _kept_port(file: Path) -> int:
    try:
        port = int(file.read_text("ascii"))
    except (OSError, ValueError):
        return 0
    return port if 1024 <= port <= 65535 else 0
