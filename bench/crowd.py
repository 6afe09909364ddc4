"""A provider whose servers are one task each: what a server's box says to its control plane, and no machine beside it.

The stand-in for Hetzner with the memory backend, in this process. A server that is made there fetches the box, enrols,
learns its identity and dials, from its own user-data alone and over the same TLS as a real one; it answers turns.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import ssl
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tinyfat.domain.enrolment import (
    ARCHIVE_PATH,
    CONTROL_CA_FILE,
    ENROL_FILE,
    ENROL_PATH,
    IDENTITY_PATH,
    KEY_BYTES,
    Identity,
    key_hash,
    read_identity,
)
from tinyfat.domain.link import (
    HEARTBEAT_SECONDS,
    PROTOCOL,
    Hello,
    RuntimeState,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnReceived,
)
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.turns import TurnOutcome, TurnResult
from tinyfat.machine_hosts.machine_host import HostOrder
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.memory_host import MemoryHost
from tinyfat.standins.hetzner.server import Standin, hetzner_app
from tinyfat.standins.serving import served

TOKEN = "token-of-the-crowd"
BOOT_SECONDS = 2.0  # from a server's being made to its first request
REQUEST_SECONDS_MAX = 30.0
DIAL_SECONDS_MAX = 30.0
TRIES = 5
TRY_PAUSE_SECONDS = 1.0


class InhabitedHost(MemoryHost):
    """Its machines run their user-data, as far as the control plane can tell."""

    def __init__(self) -> None:
        super().__init__(time.time)
        self.boxes: dict[str, asyncio.Task[None]] = {}
        self.failures: list[str] = []

    async def create(self, order: HostOrder) -> None:
        new = order.name not in self.machines_by_name
        await super().create(order)
        if new:
            self.boxes[order.name] = asyncio.create_task(self._live(order.user_data), name=order.name)

    async def destroy(self, name: str) -> None:
        await super().destroy(name)
        if box := self.boxes.pop(name, None):
            box.cancel()

    async def close(self) -> None:
        for box in self.boxes.values():
            box.cancel()
        await asyncio.gather(*self.boxes.values(), return_exceptions=True)

    async def _live(self, user_data: str) -> None:
        await asyncio.sleep(BOOT_SECONDS)
        try:
            await _Box(user_data).live()
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Crowd:
    """`url`: of the API."""

    url: str
    host: InhabitedHost
    standin: Standin

    def requests(self) -> int:
        """How many it has answered, but for those that the rate limit has given back."""
        return round(self.standin.limit.per_hour - self.standin.limit.remaining)


class _Box:
    def __init__(self, user_data: str) -> None:
        order = json.loads(_written(user_data, ENROL_FILE))
        self._url, self._machine_id = str(order["control_url"]), str(order["machine_id"])
        self._token, self._sha256 = str(order["enrolment_token"]), str(order["box_sha256"])
        self._tls = ssl.create_default_context(cadata=_written(user_data, CONTROL_CA_FILE))

    async def live(self) -> None:
        identity = await self._enrolled()
        headers = {"Authorization": f"Bearer {identity.link_token}"}
        for attempt in range(TRIES):
            with suppress(ConnectionClosed, OSError, TimeoutError):
                async with connect(
                    identity.link_url, additional_headers=headers, ssl=self._tls, compression=None, proxy=None,
                    open_timeout=DIAL_SECONDS_MAX,
                ) as socket:  # fmt: skip
                    await self._talk(socket)
            if attempt < TRIES - 1:
                await asyncio.sleep(TRY_PAUSE_SECONDS)
        raise AssertionError(f"the link of {self._machine_id} ended {TRIES} times")

    async def _enrolled(self) -> Identity:
        key = secrets.token_hex(KEY_BYTES)
        said = {"machine_id": self._machine_id, "token": self._token, "key_hash": key_hash(key).hex()}
        async with httpx2.AsyncClient(verify=self._tls, timeout=REQUEST_SECONDS_MAX, trust_env=False) as http:
            (await http.get(f"{self._url}{ARCHIVE_PATH}/{self._sha256}")).raise_for_status()
            (await http.post(f"{self._url}{ENROL_PATH}", json=said)).raise_for_status()
            headers = {"Authorization": f"Bearer {key}"}
            answer = (await http.get(f"{self._url}{IDENTITY_PATH}", headers=headers)).raise_for_status()
        return read_identity(answer.content)

    async def _talk(self, socket: ClientConnection) -> None:
        await socket.send(encode(Hello(PROTOCOL, "crowd")))
        beating = asyncio.create_task(_beat(socket))
        try:
            async for message in socket:
                frame = decode(message)
                if isinstance(frame, TurnOffer):
                    now = time.time()
                    result = TurnResult(TurnOutcome.ANSWERED, "Here I am.", received_at=now, answered_at=now)
                    await socket.send(encode(TurnReceived(frame.turn.id)))
                    await socket.send(encode(TurnAnswer(frame.turn.id, result)))
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)


async def _beat(socket: ClientConnection) -> None:
    while True:
        await socket.send(encode(Status(RuntimeState.READY, version="crowd")))
        await asyncio.sleep(HEARTBEAT_SECONDS)


def _written(user_data: str, path: str) -> str:
    """The text that this user-data writes to this path."""
    found = re.search(rf'path: "{path}"\n +permissions: .*\n +content: \|\n((?:      .*\n)+)', user_data)
    assert found is not None, f"the user-data writes no {path}"
    return textwrap.dedent(found[1])


@asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    """Its rate limit is the vendor's."""
    host = InhabitedHost()
    standin = Standin(Cloud(host=host), TOKEN)
    async with served(hetzner_app(standin)) as url:
        yield Crowd(f"{url}/v1", host, standin)
