"""A whole Debian that knows nothing of us: user-data, enrolment, SSH, the firewall, a claim, a second boot.

On a container of systemd with its own cloud-init and sshd; OpenSSH's client and a scan of every port look from outside.
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.box.enrolling import MACHINE_ID, SECRET, TOKEN, ControlPlane, identity
from tests.machine_speed import patient
from tests.running import until
from tinyfat.domain.enrolment import ssh_principal
from tinyfat.domain.link import (
    Frame,
    IdentitySerial,
    ModelAccess,
    RuntimeSpec,
    RuntimeState,
    Status,
    TurnAnswer,
    TurnOffer,
    TurnSettled,
    Welcome,
)
from tinyfat.domain.link_json import decode, encode
from tinyfat.domain.machines import MachineOrder, MachineState, ServerOrder
from tinyfat.domain.turns import Turn
from tinyfat.drivers.authorities.archive import box_archive
from tinyfat.drivers.authorities.ssh import SshAuthority
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.machine_host import HostOrder
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.recipes.cloud_init import user_data

pytestmark = pytest.mark.nspawn

READY_SECONDS_MAX = 90.0
COMMAND_SECONDS_MAX = 20.0
SCAN_AT_ONCE = 800
SCAN_SECONDS = 0.3  # for the answers of a machine on this very host
NAME = "enrolment-story"


class Links:
    """The control plane's end of the link, in the server's thread; read from the test's."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.agent_name, self.serial = "ada", 1
        self._socket: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, socket: Any) -> None:
        await socket.accept()
        self._socket, self._loop = socket, asyncio.get_running_loop()
        try:
            await self._welcome()
            while True:
                frame = decode(await socket.receive_text())
                if frame is not None:
                    self.frames.append(frame)
                if isinstance(frame, TurnAnswer):
                    await socket.send_text(encode(TurnSettled(frame.turn_id)))
        except Exception:  # however it ended: the box dials again
            return

    def become(self, agent_name: str, serial: int) -> None:
        self.agent_name, self.serial = agent_name, serial
        self._do(self._welcome())

    def ask(self, turn_id: str, text: str) -> None:
        turn = Turn(turn_id, "email:1", f"From: owner@example.org\nSubject: Hello\n\n{text}", 30.0)
        self._do(self._socket.send_text(encode(TurnOffer(turn))))

    def answer(self, turn_id: str) -> str:
        """ "" while there is none."""
        of = (f for f in self.frames if isinstance(f, TurnAnswer) and f.turn_id == turn_id)
        return next((frame.result.text for frame in of), "")

    def ready(self) -> bool:
        return any(isinstance(frame, Status) and frame.state is RuntimeState.READY for frame in self.frames)

    async def _welcome(self) -> None:
        model = ModelAccess("openai-completions", "http://127.0.0.1:9", "key", "echo")
        await self._socket.send_text(encode(Welcome(RuntimeSpec("echo", self.agent_name, model, 10**9))))
        await self._socket.send_text(encode(IdentitySerial(self.serial)))

    def _do(self, coroutine: Any) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(COMMAND_SECONDS_MAX)


@dataclass
class Story:
    host: NspawnHost
    plane: ControlPlane
    links: Links
    address: str
    folder: Path

    async def ssh(self, user: str, *command: str, certificate: str = "", key: str = "owner") -> tuple[int, str]:
        argv = ["ssh", "-F", "none", "-i", str(self.folder / key)]
        for option in (
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "ConnectTimeout=5",
            *([f"CertificateFile={self.folder / certificate}"] if certificate else []),
        ):
            argv += ["-o", option]
        process = await asyncio.create_subprocess_exec(
            *argv,
            f"{user}@{self.address}",
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(patient(COMMAND_SECONDS_MAX)):
            said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


def open_ports(address: str) -> list[int]:
    """By a TCP connection to each of the 65,535, from the machine's own network."""
    found = []
    for first in range(1, 65536, SCAN_AT_ONCE):
        poller, dialled = select.poll(), {}
        for port in range(first, min(first + SCAN_AT_ONCE, 65536)):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((address, port))
            dialled[one.fileno()] = port, one
            poller.register(one, select.POLLOUT)
        until_then = time.monotonic() + SCAN_SECONDS
        while (left := until_then - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000):
                port, one = dialled[descriptor]
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(port)
                poller.unregister(descriptor)
        for _, one in dialled.values():
            one.close()
    return found


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None or shutil.which("ssh") is None:
        pytest.skip("containers of systemd need root, systemd-nspawn and OpenSSH's client")
    from tests.machine_hosts.base_image import base_image  # only here: it may take a minute

    images = tmp_path / "images"
    image = await base_image(ImageFolder(images))
    host = NspawnHost(tmp_path / "host", images, lambda: datetime.now(UTC))
    await host.open()
    archive, links = box_archive(), Links()
    try:
        with ControlPlane(tmp_path / "tls", {archive.sha256: archive.data}, host.gateway.ipv4, links) as plane:
            owner = await keys(tmp_path)
            link_url = plane.url.replace("https", "wss") + "/box/link"
            plane.ledger.identity = identity(owner_keys=(owner,), link_url=link_url)
            order = MachineOrder(MACHINE_ID, "ada", "echo", "", "", ordered(plane, archive.sha256, owner))
            await host.create(HostOrder(NAME, image, user_data(order), "ada", 1024**3))
            seen = await host.look(NAME)
            assert seen.address is not None
            (tmp_path / "known_hosts").write_text(
                f"{seen.address.ipv4} {SshAuthority(SECRET).host_key('agent-1')[1]}\n"
            )
            made = Story(host, plane, links, seen.address.ipv4, tmp_path)
            await until(_async(links.ready), READY_SECONDS_MAX, "the box calls and its runtime is ready")
            yield made
    finally:
        await host.destroy(NAME)
        await host.close()


def ordered(plane: ControlPlane, sha256: str, owner: str) -> ServerOrder:
    return ServerOrder(
        hostname="ada.agents.example.org",
        control_url=plane.url,
        control_ca=plane.authority.pem,
        enrolment_token=TOKEN,
        box_sha256=sha256,
        ssh_ca=SshAuthority(SECRET).public_line,
        owner_keys=(owner,),
    )


async def keys(folder: Path) -> str:
    """The owner's key pair, and the operator's with a certificate for this machine and one for another."""
    ssh = SshAuthority(SECRET)
    for name in ("owner", "operator"):
        private, public = ssh.host_key(f"of {name}")
        (folder / name).touch(0o600)
        (folder / name).write_text(private)
        for file, machine_id in (("this", MACHINE_ID), ("other", "another")):
            line = ssh.sign_user(public, [ssh_principal(machine_id)], 300, name, 1, datetime.now(UTC))
            (folder / f"{name}-{file}.pub").write_text(line + "\n")
    return ssh.host_key("of owner")[1]


async def test_a_machine_becomes_an_agents_and_stays_it(story: Story) -> None:
    await it_answers(story, "t1", "Is anybody there?")
    await only_those_come_in_who_may(story)
    await the_runtime_learns_no_secret(story)
    assert await asyncio.to_thread(open_ports, story.address) == [22]
    await a_claim_changes_who_it_is_and_stops_nothing(story)
    await a_second_boot_is_the_same_machine(story)


async def it_answers(story: Story, turn_id: str, text: str) -> None:
    story.links.ask(turn_id, text)
    await until(_async(lambda: story.links.answer(turn_id)), COMMAND_SECONDS_MAX, f"the answer to {turn_id}")
    assert story.links.answer(turn_id).startswith(text)


async def only_those_come_in_who_may(story: Story) -> None:
    """Its host key was known before it existed: nothing was trusted on first use."""
    code, said = await story.ssh("owner", "sudo -n id -un; hostname -f; cloud-init status")
    assert (code, said.split("\n")[:2]) == (0, ["root", "ada.agents.example.org"]), said
    assert "status: done" in said or "status: running" in said, said
    assert await story.ssh("operator", "id -un", key="operator", certificate="operator-this.pub") == (0, "operator\n")
    for user, key, certificate in (
        ("operator", "operator", ""),
        ("operator", "operator", "operator-other.pub"),
        ("operator", "owner", ""),
        ("owner", "operator", "operator-this.pub"),
        ("root", "operator", "operator-this.pub"),
        ("root", "owner", ""),
        ("tinyfat", "operator", "operator-this.pub"),
    ):
        code, said = await story.ssh(user, "id", key=key, certificate=certificate)
        assert (code, "Permission denied" in said) == (255, True), (user, key, certificate, said)


async def the_runtime_learns_no_secret(story: Story) -> None:
    """As its user: not what the machine enrolled with, not the user-data, not the metadata service; and no way up."""
    dial = (
        "import socket; s = socket.socket(); s.settimeout(3)\n"
        "try: s.connect(('169.254.169.254', 80)); print('connected')\n"
        "except OSError as e: print(type(e).__name__)"
    )
    for command, wanted in (
        ("cat /etc/tinyfat/enrol.json /etc/tinyfat/machine.key /etc/ssh/ssh_host_ed25519_key", "Permission denied"),
        ("cat /var/lib/cloud/instance/user-data.txt", "Permission denied"),
        ("sudo -n id", "password is required"),
        ("touch /opt/tinyfat/box/mine", "Permission denied"),
        (f'python3 -c "{dial}"', "ConnectionRefusedError"),
    ):
        _, said = await story.ssh("owner", f"sudo -n -u tinyfat -- {command}")
        assert wanted in said, (command, said)


async def a_claim_changes_who_it_is_and_stops_nothing(story: Story) -> None:
    box = "systemctl show tinyfat-box -p MainPID -p NRestarts"
    _, before = await story.ssh("operator", box, key="operator", certificate="operator-this.pub")
    story.plane.ledger.identity = identity(
        serial=2,
        agent_name="bob",
        hostname="bob.agents.example.org",
        owner_keys=(),
        link_url=story.plane.ledger.identity.link_url,
    )
    story.links.become("bob", 2)
    await until(_async(lambda: 2 in story.plane.ledger.fetches), COMMAND_SECONDS_MAX, "the new identity is fetched")

    async def named() -> bool:
        return (await story.ssh("operator", "hostname -f", key="operator", certificate="operator-this.pub"))[1] == (
            "bob.agents.example.org\n"
        )

    await until(named, COMMAND_SECONDS_MAX, "the new name")
    _, after = await story.ssh("operator", box, key="operator", certificate="operator-this.pub")
    assert after == before
    assert (await story.ssh("owner", "id"))[0] == 255  # that key was taken away
    await it_answers(story, "t2", "Are you still up?")


async def a_second_boot_is_the_same_machine(story: Story) -> None:
    key = story.plane.ledger.key

    async def stopped() -> bool:
        await story.host.stop(NAME)
        return (await story.host.look(NAME)).state is MachineState.STOPPED

    await until(stopped, READY_SECONDS_MAX, "it is off")
    story.links.frames.clear()
    story.plane.ledger.token_valid = False
    await story.host.start(NAME)
    await until(_async(story.links.ready), READY_SECONDS_MAX, "it is back")
    await it_answers(story, "t3", "And now?")
    assert "Your first message here began: Is anybody there?" in story.links.answer("t3")
    assert story.plane.ledger.key == key
    assert story.plane.ledger.doubts == []


def _async(condition: Any) -> Any:
    async def look() -> bool:
        return bool(condition())

    return look
