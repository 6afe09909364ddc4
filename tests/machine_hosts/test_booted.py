"""Clones of a machine that was booted once: each becomes a machine of its own, and none knows of another."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machine_hosts.virtual_machines import SECONDS, VirtualMachines, virtual_machines
from tests.running import until
from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts import booted

pytestmark = pytest.mark.vm

CLOCK_SECONDS_MAX = 2.0
LOOK = """\
hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id
cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; date +%s; sudo cat /root/secret; echo
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '
sudo ls /var/lib/cloud/instances | wc -l
"""


@dataclass(frozen=True)
class Seen:
    hostname: str
    machine_id: str
    boot: str
    host_key: str
    clock_off: float  # seconds
    secret: str
    random: str
    instances: str


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[VirtualMachines]:
    async with virtual_machines(tmp_path) as made:
        yield made


async def test_two_clones_share_a_boot_and_nothing_that_matters(machines: VirtualMachines) -> None:
    took = []
    for name in ("one", "two"):
        began = time.monotonic()
        await machines.create(name)
        took.append(time.monotonic() - began)
    print(f"made and awake within {took[0]:.1f} s, {took[1]:.1f} s")
    one, two = [await seen(machines, name) for name in ("one", "two")]
    assert one.boot == two.boot, "they were booted, each for itself"
    assert (one.hostname, two.hostname) == ("one", "two")
    assert (one.secret, two.secret) == ("secret of one", "secret of two")
    assert len({one.machine_id, two.machine_id, ""}) == 3
    assert len({one.host_key, two.host_key, ""}) == 3
    assert len({one.random, two.random, ""}) == 3
    assert one.instances == two.instances == "1"
    assert max(one.clock_off, two.clock_off) < CLOCK_SECONDS_MAX


async def test_where_qemu_refuses_the_state_the_machine_is_booted(
    machines: VirtualMachines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images" / machines.image
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
    folder.unlink()
    folder.symlink_to(broken)
    await machines.create("one")
    assert (await machines.host.look("one")).state is MachineState.RUNNING
    assert "machine one is booted instead of cloned" in caplog.text
    console = tmp_path / "host" / "machines" / "one" / "console.log"

    async def boots() -> bool:
        return console.is_file() and b"Linux" in console.read_bytes()

    await until(boots, SECONDS, "its kernel's first words")


async def seen(machines: VirtualMachines, name: str) -> Seen:
    await machines.up(name)
    asked_at = time.time()
    words = (await machines.inside(name, LOOK)).split("\n")
    clock = float(words[4])
    off = max(asked_at - 1 - clock, clock - time.time(), 0.0)  # it says whole seconds
    return Seen(words[0], words[1], words[2], words[3], off, words[5], words[6], words[7])
