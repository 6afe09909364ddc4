"""A control plane for one box, small enough to see through: it keeps every frame and says what a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.machine_speed import patient
from tinyfat.domain.link import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Frame,
    Hello,
    ModelAccess,
    Piece,
    Pieced,
    RuntimeSpec,
    RuntimeState,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnReceived,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.link_json import encode, read_frame
from tinyfat.domain.link_pieces import fits_a_frame, headed, joined, pieces
from tinyfat.domain.turns import Turn, TurnResult

TOKEN = "token-of-machine-1"
MODEL_KEY = "model-key-1234567"
WAIT_SECONDS = 20.0
POLL_SECONDS = 0.01

T = TypeVar("T")


def echo_spec(**changes: object) -> RuntimeSpec:
    model = ModelAccess("openai-completions", "http://127.0.0.1:9", MODEL_KEY, "echo")
    fields: dict[str, object] = {"kind": "echo", "agent_name": "ada", "model": model, "memory_bytes_max": 10**9}
    return RuntimeSpec(**{**fields, **changes})  # type: ignore[arg-type]


def turn(turn_id: str, text: str, session: str = "email:1", seconds: float = 30.0) -> Turn:
    return Turn(turn_id, session, f"From: owner@example.org\nSubject: echo: hang\n\n{text}", seconds)


class Plane:
    """Use as an async context manager. `settle=False`: results are kept, and never settled. `tls`: it is dialled by
    wss."""

    def __init__(self, spec: RuntimeSpec | None = None, settle: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.spec = spec or echo_spec()
        self.settle = settle
        self.frames: list[Frame] = []
        self.tokens: list[str] = []
        self.refuse_with: int | None = None
        self.sockets: set[ServerConnection] = set()
        self.port = 0
        self._server: Server | None = None

    async def __aenter__(self) -> Plane:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """At the same port as before, where there was one."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            max_size=FRAME_BYTES_MAX,
            compression=None,
            close_timeout=0.2,
            ssl=self.tls,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @property
    def url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}/box/link"

    def write_box_json(self, folder: Path, **changes: object) -> None:
        body = {
            "machine_id": "machine-1",
            "agent_name": "ada",
            "runtime": self.spec.kind,
            "link_url": self.url,
            "link_token": TOKEN,
            "shared_folder": str(folder.parent / "shared"),
        }
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / "box.json").write_text(json.dumps({**body, **changes}))

    async def say(self, frame: Frame) -> None:
        for socket in list(self.sockets):
            with contextlib.suppress(ConnectionClosed):
                await socket.send(encode(frame))

    async def offer(self, *turns: Turn) -> None:
        for one in turns:
            offer = TurnOffer(one)
            if fits_a_frame(offer):
                await self.say(offer)
                continue
            head, contents = headed(offer)
            for piece in pieces(one.id, b"".join(contents)):
                await self.say(piece)
            await self.say(head)

    async def welcome(self, spec: RuntimeSpec) -> None:
        self.spec = spec
        await self.say(Welcome(spec, PROTOCOL))

    def of(self, kind: type[T]) -> list[T]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def results(self, turn_id: str) -> list[TurnResult]:
        return [answer.result for answer in self.of(TurnAnswer) if answer.turn_id == turn_id]

    def receipts(self, turn_id: str) -> int:
        return sum(1 for receipt in self.of(TurnReceived) if receipt.turn_id == turn_id)

    async def result(self, turn_id: str) -> TurnResult:
        await until(lambda: self.results(turn_id), f"the result of {turn_id}")
        return self.results(turn_id)[0]

    async def connected(self, times: int = 1) -> None:
        await until(lambda: len(self.of(Hello)) >= times and self.sockets, f"connection {times} of the box")

    async def state(self, wanted: RuntimeState) -> Status:
        await until(lambda: self.last_status() and self.last_status().state is wanted, f"the state {wanted}")
        return self.last_status()

    def last_status(self) -> Status:
        statuses = self.of(Status)
        return statuses[-1] if statuses else Status(RuntimeState.STOPPED)

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.tokens.append(socket.request.headers["Authorization"])
        if self.refuse_with is not None:
            await socket.close(self.refuse_with)
            return
        self.sockets.add(socket)
        arrived = bytearray()
        try:
            async for message in socket:
                frame = read_frame(message)
                assert frame is not None
                if isinstance(frame, Piece):
                    arrived += frame.content
                    continue
                if isinstance(frame, Pieced):
                    frame, arrived = joined(frame, bytes(arrived)), bytearray()
                self.frames.append(frame)
                match frame:
                    case Hello():
                        await socket.send(encode(Welcome(self.spec, PROTOCOL)))
                    case TurnAnswer(turn_id) if self.settle:
                        await socket.send(encode(TurnSettled(turn_id)))
        except ConnectionClosed:
            pass
        finally:
            self.sockets.discard(socket)


async def until(look: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll until it is so; the failure names what did not come."""
    try:
        async with asyncio.timeout(patient(seconds)):
            while not look():
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"waited {seconds:.0f} s in vain for {what}") from None


def ran(folder: Path, event: str = "received") -> list[str]:
    """The turns the echo runtime says it had, in order."""
    log = folder / "state" / "turns.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [entry["turn"] for entry in map(json.loads, lines) if entry["event"] == event]
