"""The relay's whole HTTP side and its vendors' connections in memory, on a loop whose clock jumps: a call that waits an
hour takes a millisecond, and every run is the same. Bytes are real on both sides; only the sockets are not there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import selectors
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.relay.relays import KEY, NO_CAPS, NoOwners
from tinyfat.domain.relay_keys import key_hash
from tinyfat.domain.usage import Caps
from tinyfat.drivers.inference.connection import Connection
from tinyfat.drivers.inference.http import _head, _HttpSent, _parsed
from tinyfat.drivers.usage.memory import MemoryUsageLedger
from tinyfat.ports.inference import Answer, Call, Sent, Target, VendorUnreachable
from tinyfat.ports.usage import Held, Refused, Reservation, Settlement
from tinyfat.relay.batches import LedgerDesk
from tinyfat.relay.calls import Calls
from tinyfat.relay.counting import CountTokens
from tinyfat.relay.models import Models
from tinyfat.relay.server import STOP_SECONDS_MAX, RelayServer, _Server
from tinyfat.relay.vendors import Waits

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Where nothing is to be read, the time is at once what is waited for."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits, and for nothing"
            self.now += max(timeout, 0.0)
        return found


def in_no_time(main: Coroutine[Any, Any, T]) -> T:
    selector = _Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


class _Pipe(asyncio.Transport):
    """One side of a connection that is not there: what is written is kept."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol, self.written, self.gone = protocol, bytearray(), False
        self.ended = asyncio.Event()

    def write(self, data: Any) -> None:
        if not self.gone:
            self.written += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.gone

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def lose(self, error: Exception | None = None) -> None:
        if not self.gone:
            self.gone = True
            self.ended.set()
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

    close = lose

    def abort(self) -> None:
        self.lose(ConnectionResetError())


@dataclass(frozen=True)
class Wait:
    """The vendor says nothing for so long."""

    seconds: float


HANG_UP = "hang up"
HANG = "hang"  # and never speak again
Step = bytes | Wait | str


@dataclass
class WireVendor:
    """Each call is answered by the next script, the last one again and again; None: nobody is there."""

    scripts: list[Sequence[Step] | None]
    calls: list[Call] = field(default_factory=list)

    async def send(self, call: Call) -> Sent:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if script is None:
            raise VendorUnreachable("nobody is there")
        self.calls.append(call)
        connection = Connection(lambda gone: None)
        pipe = _Pipe(connection)
        connection.connection_made(pipe)
        loop = asyncio.get_running_loop()
        connection.send(_head(_parsed(call.url)[1], call), call.body, loop.time() + call.first_byte_seconds)
        self._speaking = asyncio.create_task(self._speak(script, pipe))
        return _HttpSent(connection, call.idle_seconds, lambda: connection.rest() and None)

    async def open(self, call: Call) -> Answer:
        return await (await self.send(call)).answer()

    async def close(self) -> None: ...

    async def _speak(self, script: Sequence[Step], pipe: _Pipe) -> None:
        for step in script:
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
            elif pipe.gone or step == HANG:
                break
            elif step == HANG_UP:
                pipe.lose()
                break
            elif isinstance(step, bytes):
                pipe.protocol.data_received(step)
                await asyncio.sleep(0)


class CountedLedger(MemoryUsageLedger):
    """It sees how often a hold was ended."""

    ends: Counter[str]

    async def commit(
        self, reservations: Sequence[Reservation], settlements: Sequence[Settlement], releases: Sequence[str]
    ) -> list[Held | Refused]:
        ending = [one.call_id for one in settlements] + list(releases)
        self.ends.update(call_id for call_id in ending if call_id in self._holds)
        return await super().commit(reservations, settlements, releases)


class WireRelay:
    def __init__(
        self, scripts: Sequence[Sequence[Step] | None], targets: Sequence[Target], caps: Caps = NO_CAPS,
        waits: Waits | None = None,
    ) -> None:  # fmt: skip
        """Call it inside the loop."""
        self.vendor = WireVendor(list(scripts))
        self.ledger = CountedLedger()
        self.ledger.ends = Counter()
        self.ledger.add("ada", key_hash(KEY), caps)
        models = Models({"main": list(targets)}, {})
        ids = (f"call-{number}" for number in itertools.count())
        clock = asyncio.get_running_loop().time
        self.calls = Calls(
            models, LedgerDesk(self.ledger), self.vendor, NoOwners(), waits or Waits(), clock, ids.__next__
        )
        self._server = RelayServer(self.calls, models, CountTokens(self.calls))
        self._server._server = _Server(self._server._handle)

    def ask(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Client:
        return Client(self._server._server, path, body, headers or {})

    async def stop(self) -> None:
        """As RelayServer.stop, whose listeners are not there."""
        await self._server._server.shutdown(STOP_SECONDS_MAX / 2)
        await self.calls.close()


class Client:
    """One call of an agent's."""

    def __init__(self, server: _Server, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        handler = server()
        self._pipe = _Pipe(handler)
        handler.connection_made(self._pipe)
        named = {"host": "x", "x-api-key": KEY, "content-length": str(len(body)), "connection": "close", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        handler.data_received(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    def hang_up(self) -> None:
        self._pipe.lose(ConnectionResetError())

    async def ended(self) -> tuple[int, bytes]:
        """(status, all that came, head and all) when the connection is closed."""
        await self._pipe.ended.wait()
        return self.status, bytes(self._pipe.written)

    @property
    def came(self) -> bytes:
        return bytes(self._pipe.written)

    @property
    def status(self) -> int:
        return int(self.came[9:12] or 0)


def answer_head(kind: str, status: int = 200, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{more}transfer-encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


LAST_CHUNK = b"0\r\n\r\n"


def sse(body: object) -> bytes:
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"data: " + said + b"\n\n"
