"""The control plane's side of enrolment over real TLS, a ledger in memory, and a folder that stands for a machine."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.machine_speed import patient
from tinyfat.api.box_enrol import make_box_app
from tinyfat.box.become import BecomeFailed, Machine
from tinyfat.domain.enrolment import CONTROL_CA_FILE, ENROL_FILE, Identity, Outcome, SiteTls, key_hash
from tinyfat.drivers.authorities.sites import SiteAuthority
from tinyfat.drivers.authorities.ssh import SshAuthority
from tinyfat.drivers.authorities.tls import ServerTls, TlsAuthority
from tinyfat.engine.reading import Reading
from tinyfat.ports.enrolments import EnrolOutcome
from tinyfat.ports.ledger import NotFound, StoreUnavailable

SECRET = b"s" * 32
MACHINE_ID = "3f1f0f5e-0000-4000-8000-000000000001"
TOKEN = "enrolment-token"
OWNER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMgxVUM3Pk0liuXD3BPoXwgLuN+s0CrFPNl68jxlsHlr owner"
START_SECONDS_MAX = patient(10.0)


def identity(**changes: Any) -> Identity:
    ssh = SshAuthority(SECRET)
    fields: dict[str, Any] = {
        "serial": 1,
        "machine_id": MACHINE_ID,
        "agent_name": "ada",
        "runtime": "echo",
        "hostname": "ada.agents.example.org",
        "link_url": "wss://192.0.2.1:8027/box/link",
        "link_token": "link-token",
        "ssh_host_key": ssh.host_key("agent-1")[0],
        "ssh_ca": ssh.public_line,
        "owner_keys": (OWNER_KEY,),
    }
    return Identity(**(fields | changes))


def own_site() -> SiteTls:
    """With a certificate of our own authority."""
    authority = SiteAuthority(SECRET, "agents.example.org")
    return SiteTls(*authority.certificate("agent-1", "ada.agents.example.org", datetime(2026, 11, 23, tzinfo=UTC)))


class Ledger:
    """Enrolments and identities, as the port says, of one machine."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.identity = identity()
        self.key: bytes | None = None
        self.token_valid = True
        self.away = False
        self.doubts: list[str] = []
        self.fetches: list[int] = []
        self.outcomes: list[Outcome] = []

    async def enrol(self, machine_id: str, token_hash: bytes, key: bytes) -> EnrolOutcome:
        if self.away:
            raise StoreUnavailable("away")
        if (machine_id, token_hash) != (MACHINE_ID, key_hash(TOKEN)):
            return EnrolOutcome.REFUSED
        if self.key is not None and self.key != key:
            return EnrolOutcome.TAKEN
        if self.key is None and not self.token_valid:
            return EnrolOutcome.REFUSED
        self.key = key
        return EnrolOutcome.ENROLLED

    async def by_key(self, key: bytes) -> str | None:
        return MACHINE_ID if key == self.key else None

    async def fetched(self, machine_id: str, serial: int) -> None:
        self.fetches.append(serial)

    async def became(self, machine_id: str, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    async def doubted(self, machine_id: str, words: str) -> None:
        self.doubts.append(words)

    async def of(self, machine_id: str) -> Identity:
        if self.identity.machine_id != machine_id:
            raise NotFound("no such machine")
        return self.identity


class NoLinks:
    async def serve(self, socket: Any) -> None:
        await socket.close()


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ControlPlane:
    """Served from a thread of its own: the machine's side is not asynchronous."""

    def __init__(
        self, folder: Path, archives: dict[str, bytes] | None = None, host: str = "127.0.0.1", links: Any = None
    ) -> None:
        self.ledger = Ledger()
        self.authority = TlsAuthority(SECRET)
        self._listener = socket.socket()
        self._listener.bind((host, 0))
        self.url = f"https://{host}:{self._listener.getsockname()[1]}"
        app: FastAPI = make_box_app(links or NoLinks(), self.ledger, self.ledger, archives or {}, Reading())  # type: ignore[arg-type]
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="websockets-sansio")
        config.load()
        config.ssl = ServerTls(self.authority, [host], folder, datetime.now(UTC)).context
        self._server = Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ControlPlane:
        self._thread.start()
        assert self._started.wait(START_SECONDS_MAX)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_SECONDS_MAX)
        self._listener.close()

    def _run(self) -> None:
        async def serve() -> None:
            self._listener.listen()
            self._started.set()  # from now on connections wait in the backlog
            await self._server.serve(sockets=[self._listener])

        asyncio.run(serve())


class Commands:
    """What root would have run."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing = ""

    def __call__(self, argv: list[str], seconds: float) -> None:
        self.ran.append(" ".join(argv))
        if self.failing and self.failing in self.ran[-1]:
            raise BecomeFailed(f"{self.failing} failed")

    def taken(self) -> list[str]:
        ran, self.ran = self.ran, []
        return ran


def machine(root: Path, commands: Commands, control_url: str, authority: str, **changes: str) -> Machine:
    """As user-data leaves it."""
    made = Machine(root, commands, pwd.getpwuid(os.geteuid()).pw_name)
    order = {"control_url": control_url, "machine_id": MACHINE_ID, "enrolment_token": TOKEN, "box_sha256": ""}
    for path, text in ((ENROL_FILE, json.dumps(order | changes)), (CONTROL_CA_FILE, authority)):
        made.path(path).parent.mkdir(parents=True, exist_ok=True)
        made.path(path).write_text(text)
    made.path("/var/lib/tinyfat").mkdir(parents=True, exist_ok=True)
    return made
