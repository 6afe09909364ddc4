"""What the stories of servers share: a TinyFat whose agents get machines of this host, and the real clients that look
at them from outside (dig, ssh, a scan of every port). Whatever a story leaves, `town` removes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.machine_speed import patient
from tests.running import OWNER, CommandError, TinyFat, free_port, letter, surroundings
from tests.stories.town import Operator, PostOffice, new_id
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.machine_hosts.qemu import QemuHost

HETZNER_TOKEN = "token-of-the-story"
DOMAIN = "agents.tinyfat.localhost"
IMAGE_SECONDS_MAX = 900.0  # Debian and OpenClaw from nothing
READY_SECONDS_MAX = 240.0
REPLY_SECONDS_MAX = 60.0
PROGRAM_SECONDS_MAX = 60.0
PROGRAMS = ("systemd-nspawn", "mmdebstrap", "dig", "ssh", "ssh-keyscan", "ip")


@dataclass(frozen=True)
class Server:
    """What a program outside knows of an agent's server."""

    agent: str
    id: str
    ipv4: str


@dataclass(frozen=True)
class Town:
    tinyfat: TinyFat
    office: PostOffice
    operator: Operator
    dns_port: int
    hosts: Path  # the folder of the machines on this host

    async def image(self, runtime: str, driver: str = "nspawn") -> str:
        built = await self.tinyfat.json(
            "image", "build", "--runtime", runtime, "--driver", driver, seconds=IMAGE_SECONDS_MAX
        )
        return str(built["name"])

    async def make(self, name: str, runtime: str, *more: str, seconds: float = READY_SECONDS_MAX) -> Server:
        """By its command, until it has answered a first question."""
        try:
            made = await self.tinyfat.json(
                "agent", "create", name, "--owner", OWNER, "--runtime", runtime, "--wait", *more,
                seconds=seconds,
            )  # fmt: skip
        except CommandError as error:
            raise AssertionError(f"{error}\n{await self.tinyfat.command('agent', 'logs', name)}") from None
        assert made["state"] == "ready", made
        return await self.server(name)

    async def server(self, name: str) -> Server:
        machine = (await self.operator.ask("GET", f"agents/{name}"))["machine"]
        return Server(name, machine["id"], machine["ipv4"])

    async def ask(self, name: str, text: str, subject: str = "Hello", **more: str) -> tuple[str, str]:
        """A mail of the owner's; (its Message-ID, the text of the reply)."""
        message_id = new_id()
        mail = letter(text, to=f"{name}@{DOMAIN}", subject=subject, message_id=message_id, **more)
        assert (await self.tinyfat.send(mail)).startswith("2")
        reply = await self.office.reply_to(message_id, REPLY_SECONDS_MAX)
        assert reply.rcpt_to == [OWNER]
        return message_id, reply.text

    async def dig(self, name: str, kind: str = "A") -> list[str]:
        said = await program("dig", "+short", "+tries=1", "@127.0.0.1", "-p", str(self.dns_port), name, kind)
        return said.split()

    def welcome(self, name: str) -> str:
        """The text of the mail that told the owner."""
        (text,) = [
            mail.text
            for mail in self.office.received
            if f"{name}@{DOMAIN}" in str(mail.message["From"]) and f"owner@{name}.{DOMAIN}" in mail.text
        ]
        return text


async def program(*argv: str, fails: bool = False) -> str:
    """What it printed. AssertionError unless it ended as expected."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(patient(PROGRAM_SECONDS_MAX)):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise AssertionError(f"{argv} did not end within {PROGRAM_SECONDS_MAX} s") from None
    assert (process.returncode != 0) is fails, f"{argv}: exit {process.returncode}\n{said.decode()}"
    return said.decode()


async def host_key(address: str) -> str:
    """As a line of known_hosts: whoever answers there says so, and it is not believed yet."""
    said = await program("ssh-keyscan", "-t", "ed25519", address)
    return "".join(f"{line}\n" for line in said.splitlines() if not line.startswith("#"))


def processes(folder: Path) -> list[psutil.Process]:
    """Every process of every machine in this folder, those inside too."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()):
                found += [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
    return found


def alive(these: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in these if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def leases(folder: Path) -> dict[str, Any]:
    file = folder / "leases.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found


async def bridges() -> set[str]:
    return {link["ifname"] for link in json.loads(await program("ip", "-j", "link", "show", "type", "bridge") or "[]")}


def need_machines() -> None:
    if os.geteuid() != 0:
        pytest.skip("machines on this host need root")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"tests/stories/install_machine_tools.sh was not run: {', '.join(missing)} missing")


@asynccontextmanager
async def town(
    folder: Path, office: PostOffice, hosts: Path | None = None, dns_port: int = 0, **settings: str
) -> AsyncIterator[Town]:
    """A running TinyFat with machines of this host (containers of systemd, unless a setting says otherwise) and names
    of its own. `hosts`: where somebody else makes those machines; `dns_port` 0: any."""
    settings = {"TINYFAT_MACHINE": "nspawn", **settings}
    dns_port = dns_port or free_port()
    folder.mkdir(exist_ok=True)
    home = folder / "home"
    tinyfat = TinyFat(
        home,
        TINYFAT_DOMAIN=DOMAIN,
        TINYFAT_SMARTHOST=f"127.0.0.1:{office.port}",
        TINYFAT_DNS="local",
        TINYFAT_DNS_LISTEN=f"127.0.0.1:{dns_port}",
        TINYFAT_MODEL_URL="",  # the model stand-in, through the relay
        **settings,
    )
    hosts = hosts or home / settings["TINYFAT_MACHINE"]
    try:
        async with tinyfat, Operator(tinyfat) as operator:
            yield Town(tinyfat, office, operator, dns_port, hosts)
    finally:
        await remove_machines(hosts)


@asynccontextmanager
async def hetzner(state: Path, image: str, memory_mb: int = 1024) -> AsyncIterator[str]:
    """The stand-in as a program, its servers real machines made from `image`; the URL of its API."""
    listen = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tinyfat", "standin", "hetzner", "--listen", listen, "--backend", "nspawn",
        "--state", str(state), "--image", image, "--memory-mb", str(memory_mb), "--action-seconds", "0.1",
        env=surroundings() | {"TINYFAT_STANDIN_TOKEN": HETZNER_TOKEN}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(patient(PROGRAM_SECONDS_MAX)):
            first = (await process.stdout.readline()).decode()
        assert first.startswith("api"), first
        yield first.split()[1]
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), PROGRAM_SECONDS_MAX)
        await remove_machines(state / "machines")


async def remove_machines(hosts: Path) -> None:
    """Of a story that failed; of one that went well nothing is left to remove."""
    if not hosts.is_dir():
        return
    kind = QemuHost if hosts.name == "local_vm" else NspawnHost
    host = kind(hosts, hosts / "no-images", lambda: datetime.now(UTC))
    for machine in await host.machines():
        await host.destroy(machine.name)
    await host.close()
