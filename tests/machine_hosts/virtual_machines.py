"""Virtual machines for tests, as clones: there within seconds, and looked at from inside by SSH."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.running import until
from tests.stories.servers_town import program
from tinyfat.drivers.machines.hosted import MEMORY_BYTES
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.machine_host import HostOrder
from tinyfat.machine_hosts.qemu import QemuHost

SECONDS = 300.0  # all of cloud-init, emulated, on a host that has other work
USER_DATA = """#cloud-config
hostname: {name}
locale: false
ssh_genkeytypes: [ed25519]
users: [{{name: owner, shell: /bin/bash, lock_passwd: true, sudo: "ALL=(ALL) NOPASSWD:ALL",
  ssh_authorized_keys: ["{key}"]}}]
write_files: [{{path: /root/secret, permissions: "0600", content: "secret of {name}"}}]
"""


@dataclass(frozen=True)
class VirtualMachines:
    host: QemuHost
    image: str  # frozen, once for this user's cache
    key: Path  # opens each of them, as owner

    async def create(self, name: str) -> None:
        text = USER_DATA.format(name=name, key=self.key.with_suffix(".pub").read_text().strip())
        await self.host.create(HostOrder(name, self.image, text, name, MEMORY_BYTES))

    async def inside(self, name: str, command: str) -> str:
        """What the command prints. Raises AssertionError where it fails, or nobody lets us in."""
        machine = await self.host.look(name)
        assert machine.address is not None
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5")
        flags = [word for option in options for word in ("-o", option)]
        return await program("ssh", "-F", "none", "-i", str(self.key), *flags, f"owner@{machine.address.ipv4}", command)

    async def up(self, name: str) -> None:
        """Its cloud-init is done."""

        async def done() -> bool:
            try:
                await self.inside(name, "cloud-init status --wait >/dev/null")
            except AssertionError:
                return False
            return True

        await until(done, SECONDS, f"{name} lets its owner in")


@asynccontextmanager
async def virtual_machines(folder: Path) -> AsyncIterator[VirtualMachines]:
    if shutil.which("qemu-system-x86_64") is None or os.geteuid() != 0:
        pytest.skip("virtual machines need qemu-system-x86, their base image and the ports below 1024 need root")
    from tests.machine_hosts.base_image import base_disk  # only here: it may take minutes

    images = folder / "images"
    image = await base_disk(ImageFolder(images))
    host = QemuHost(folder / "host", images, lambda: datetime.now(UTC))
    await host.freeze(image, MEMORY_BYTES)
    await program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    try:
        yield VirtualMachines(host, image, folder / "key")
    finally:
        for machine in await host.machines():
            await host.destroy(machine.name)
        await host.close()
