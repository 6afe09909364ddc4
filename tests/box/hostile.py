"""Links served as `tinyfat up` serves them, to boxes of a test's own making, over records that are lists."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.box.plane import echo_spec, until
from tinyfat.api.box_link import BoxLinks
from tinyfat.cli.serving_http import http_served
from tinyfat.domain.agents import Agent
from tinyfat.domain.enrolment import key_hash
from tinyfat.domain.link import PROTOCOL, Hello, LogLine, RuntimeSpec, RuntimeState, Status, Welcome
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.machines import Machine
from tinyfat.domain.turns import Turn, TurnResult

TURN = "00000000-0000-4000-8000-000000000001"


class Records:
    def __init__(self) -> None:
        self.statuses: list[tuple[str, Status]] = []
        self.lines: list[LogLine] = []
        self.builds: list[str] = []

    async def by_token(self, token_hash: bytes) -> Machine | None:
        for name in ("m1", "m2", "m3"):
            if token_hash == key_hash(name):
                wanted = SimpleNamespace(id=name, agent_id=f"agent-{name}", wanted=True, identity_serial=1)
                return cast(Machine, wanted)
        return None

    async def heard(self, machine_id: str, status: Status) -> None:
        self.statuses.append((machine_id, status))

    async def add_log(self, agent_id: str, lines: Sequence[LogLine]) -> None:
        self.lines += lines

    async def box_is(self, machine_id: str, version: str, build: str) -> None:
        self.builds.append(build)


class Turns:
    def __init__(self) -> None:
        self.results: dict[str, TurnResult] = {}
        self.open: dict[str, Turn] = {}

    async def expected(self, turn_ids: Sequence[str], machine_id: str) -> set[str]:
        return {turn_id for turn_id in turn_ids if turn_id in self.open and turn_id not in self.results}

    async def open_for(self, machine_id: str) -> list[str]:
        return list(self.open) if machine_id == "m1" else []

    async def for_box(self, turn_id: str, machine_id: str) -> Turn | None:
        return self.open.get(turn_id)

    async def received(self, turn_id: str, machine_id: str) -> None: ...

    async def answered(self, turn_id: str, machine_id: str, result: TurnResult) -> None:
        self.results.setdefault(turn_id, result)


class Agents:
    async def get(self, agent_id: str) -> Agent:
        return cast(Agent, None)


class Served:
    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/box/link"
        self.port = port
        self.records = Records()
        self.turns = Turns()
        self.links = BoxLinks(cast(Any, Agents()), cast(Any, self.records), cast(Any, self.turns), self._spec)

    async def _spec(self, agent: Agent | None, machine: Machine) -> RuntimeSpec:
        return echo_spec()

    @asynccontextmanager
    async def dialled(self, token: str = "m1") -> AsyncIterator[ClientConnection]:
        headers = {"Authorization": f"Bearer {token}"}
        box = await connect(
            self.url, additional_headers=headers, max_size=None, proxy=None, close_timeout=0.1, compression=None
        )
        try:
            yield box
        finally:
            with suppress(ConnectionClosed):
                await box.close()

    @asynccontextmanager
    async def greeted(self, token: str = "m1", protocol: int = PROTOCOL, *held: str) -> AsyncIterator[ClientConnection]:
        async with self.dialled(token) as box:
            await box.send(encode(Hello(protocol, "0.1.0", held)))
            assert isinstance(decode(await box.recv()), Welcome)
            await box.recv()  # its identity's serial
            yield box

    async def heard_status(self, box: ClientConnection, restarts: int) -> None:
        """An honest status passes, whatever others do."""
        await box.send(encode(Status(RuntimeState.READY, restarts=restarts)))
        await until(lambda: any(status.restarts == restarts for _, status in self.records.statuses), "an honest status")


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = Served(listener.getsockname()[1])
    app = FastAPI()

    @app.websocket("/box/link")
    async def link(opened: WebSocket) -> None:
        await made.links.serve(opened)

    async with http_served("link", app, listener):
        yield made
