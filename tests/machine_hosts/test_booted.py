"""Clones of a machine that was booted once: each becomes a machine of its own, and none knows of another."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.running import until
from tests.stories.servers_town import program
from tinyfat.domain.machines import MachineState
from tinyfat.drivers.machines.hosted import MEMORY_BYTES
from tinyfat.machine_hosts import booted
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.machine_host import HostOrder
from tinyfat.machine_hosts.qemu import QemuHost

SECONDS = 300.0  # all of cloud-init, emulated, on a host that has other work
CLOCK_SECONDS_MAX = 2.0
USER_DATA = """#cloud-config
hostname: {name}
locale: false
ssh_genkeytypes: [ed25519]
users: [{{name: owner, shell: /bin/bash, lock_passwd: true, sudo: "ALL=(ALL) NOPASSWD:ALL",
  ssh_authorized_keys: ["{key}"]}}]
write_files: [{{path: /root/secret, permissions: "0600", content: "secret of {name}"}}]
"""
LOOK = """\
hostname; cat /etc/machine-id; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; date +%s; sudo cat /root/secret; echo
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '
sudo ls /var/lib/cloud/instances | wc -l
"""


@dataclass(frozen=True)
class Seen:
    hostname: str
    machine_id: str
    host_key: str
    clock_off: float  # seconds
    secret: str
    random: str
    instances: str


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[QemuHost]:
    if shutil.which("qemu-system-x86_64") is None or os.geteuid() != 0:
        pytest.skip("virtual machines need qemu-system-x86, their base image and the ports below 1024 need root")
    from tests.machine_hosts.base_image import base_disk  # only here: it may take minutes

    images = tmp_path / "images"
    await base_disk(ImageFolder(images))
    made = QemuHost(tmp_path / "host", images, lambda: datetime.now(UTC))
    yield made
    for machine in await made.machines():
        await made.destroy(machine.name)
    await made.close()


@pytest.fixture
async def image(host: QemuHost) -> str:
    """Frozen: once for this user's cache."""
    (one, *_) = await host.images()
    await host.freeze(one.name, MEMORY_BYTES)
    return one.name


@pytest.mark.vm
async def test_two_clones_share_nothing_that_matters(host: QemuHost, image: str, tmp_path: Path) -> None:
    await program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    key = (tmp_path / "key.pub").read_text().strip()
    took = []
    for name in ("one", "two"):
        began = time.monotonic()
        await host.create(HostOrder(name, image, USER_DATA.format(name=name, key=key), name, MEMORY_BYTES))
        took.append(time.monotonic() - began)
    print(f"made and awake within {took[0]:.1f} s, {took[1]:.1f} s")
    one, two = [await seen(host, name, tmp_path) for name in ("one", "two")]
    assert (one.hostname, two.hostname) == ("one", "two")
    assert (one.secret, two.secret) == ("secret of one", "secret of two")
    assert len({one.machine_id, two.machine_id, ""}) == 3
    assert len({one.host_key, two.host_key, ""}) == 3
    assert len({one.random, two.random, ""}) == 3
    assert one.instances == two.instances == "1"
    assert max(one.clock_off, two.clock_off) < CLOCK_SECONDS_MAX


@pytest.mark.vm
async def test_where_qemu_refuses_the_state_the_machine_is_booted(
    host: QemuHost, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images" / image
    (whole,) = folder.glob("booted-*")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        if file != whole:
            (broken / file.name).symlink_to(file.resolve())
    damaged = broken / whole.name
    damaged.mkdir()
    for file in whole.iterdir():
        (damaged / file.name).symlink_to(file.resolve())
    (damaged / booted.STATE).unlink()
    (damaged / booted.STATE).write_bytes((whole / booted.STATE).read_bytes()[:5000])
    (tmp_path / "images" / image).unlink()
    (tmp_path / "images" / image).symlink_to(broken)
    await host.create(HostOrder("one", image, USER_DATA.format(name="one", key=""), "one", MEMORY_BYTES))
    assert (await host.look("one")).state is MachineState.RUNNING
    assert "machine one is booted instead of cloned" in caplog.text
    console = tmp_path / "host" / "machines" / "one" / "console.log"

    async def boots() -> bool:
        return console.is_file() and b"Linux" in console.read_bytes()

    await until(boots, SECONDS, "its kernel's first words")


async def seen(host: QemuHost, name: str, folder: Path) -> Seen:
    """By SSH, once cloud-init has let its owner in."""
    machine = await host.look(name)
    assert machine.address is not None
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5")
    flags = [word for option in options for word in ("-o", option)]
    argv = ["ssh", "-F", "none", "-i", str(folder / "key"), *flags, f"owner@{machine.address.ipv4}"]
    said, asked_at = "", 0.0

    async def let_in() -> bool:
        nonlocal said, asked_at
        asked_at = time.time()
        try:
            said = await program(*argv, "cloud-init status --wait >/dev/null; " + LOOK)
        except AssertionError:
            return False
        return True

    await until(let_in, SECONDS, f"{name} lets its owner in")
    words = said.split("\n")
    clock = float(words[3])
    off = max(asked_at - clock, clock - time.time(), 0.0)
    return Seen(words[0], words[1], words[2], off, words[4], words[5], words[6])
