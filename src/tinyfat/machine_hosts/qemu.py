"""Machines that are virtual machines under QEMU: a kernel, a disk and a memory of their own.

KVM where it truly works, else QEMU's own emulation, which is some thirty times slower. A machine is reached at a
loopback address of its own (port 22, and 443 where its agent is published), which QEMU forwards, and moves to another
one while it runs. From inside, 10.0.2.2 is this host's 127.0.0.1: `admit` says which ports of it a machine may reach.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts import booted
from tinyfat.machine_hosts.disks import DISK, make_disk, snapshot_disk
from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.images import ImageFolder, seen
from tinyfat.machine_hosts.leases import Leases
from tinyfat.machine_hosts.loopback_guard import LoopbackGuard
from tinyfat.machine_hosts.machine_host import HostAddress, HostFailed, HostImage, HostMachine, HostOrder, HostRefused
from tinyfat.machine_hosts.programs import require, run
from tinyfat.machine_hosts.qemu_command import (
    QMP_SOCKET,
    WAKE_SOCKET,
    Memory,
    kvm_works,
    ports,
    processor,
    qemu_argv,
)
from tinyfat.machine_hosts.qmp import ask, monitor
from tinyfat.machine_hosts.records import RECORD, Record, RecordFolder, checked_name
from tinyfat.machine_hosts.seed import NETWORK_AS_FROZEN, NETWORK_BY_DHCP, make_seed_disk, write_seed

PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "genisoimage": "genisoimage"}
GATEWAY = HostAddress("10.0.2.2")  # as QEMU's user network names this host
MACHINES_MAX = 250
KILL_SECONDS_MAX = 10.0
KILL_POLL_SECONDS = 0.02
END_SECONDS_MAX = 2.0
LOCKS = 16
GUARD_RULES = "loopback.nft"
_GUARDED = 'echo $$ >"$0" && exec "$@"'  # $0: the control group's file

log = logging.getLogger(__name__)


class QemuHost:
    """Implements MachineHost."""

    moves_addresses_live = True
    gateway = GATEWAY

    def __init__(self, folder: Path, images: Path, now: Callable[[], datetime], accelerator: str = "") -> None:
        """`accelerator`: "kvm" or "tcg"; "" chooses."""
        self._folder = folder
        self._records = RecordFolder(folder / "machines")
        self._images = ImageFolder(images)
        self._now = now
        digest = hashlib.sha256(str(folder).encode()).hexdigest()
        self._key, subnet = digest[:7], int(digest[:2], 16)
        self._leases = Leases(folder, [HostAddress(f"127.213.{subnet}.{n}") for n in range(2, 2 + MACHINES_MAX)], now)
        self._guard = LoopbackGuard(self._key, Path("/proc/self/mounts").read_text())
        self._admitted: Sequence[int] | None = None
        self.accelerator = accelerator or ("kvm" if kvm_works(*processor()) else "tcg")

    async def open(self) -> None:
        require(PROGRAMS)

    async def admit(self, ports: Sequence[int]) -> None:
        """From now on machines reach no other TCP port of this host than these (and its name servers); what they had
        open stays so. Never called, they reach all of it. Raises HostRefused, HostFailed."""
        if not self._guard.possible:
            log.warning(
                "virtual machines can reach whatever listens on this host's loopback: only root can keep them from it"
            )
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._admitted = tuple(ports)
        await self._guard.up(ports, self._folder / GUARD_RULES)

    async def close(self) -> None:
        await asyncio.to_thread(self._records.empty_trash)
        if not self._records.names():
            await self._guard.down(self._folder / GUARD_RULES)

    async def lease(self, name: str) -> HostAddress:
        return await self._leases.lease(name)

    async def release(self, name: str) -> None:
        await self._leases.release(name)

    async def leases(self) -> Mapping[str, HostAddress]:
        return self._leases.all()

    async def create(self, order: HostOrder) -> None:
        image = self._images.chain(order.image)[0]
        await self.open()
        async with self._locked(order.name):
            if self._records.read(order.name) is None:
                address = order.address or await self._leases.lease(_own_lease(order.name))
                record = self._records.make(order, address, self._now())
                folder = self._records.of(order.name)
                frozen = booted.found(image, await self._kind(order.memory_bytes))
                if frozen is None and booted.outdated(image):
                    log.warning(
                        "machine %s is booted instead of cloned: what is frozen of %s is of another QEMU, TinyFat, "
                        "processor or memory: tinyfat image freeze makes another",
                        order.name,
                        image.name,
                    )
                await make_disk(frozen.disk if frozen else image.content / DISK, folder / DISK)
                write_seed(folder / "seed", record, order.user_data, NETWORK_AS_FROZEN if frozen else NETWORK_BY_DHCP)
                await make_seed_disk(folder)
                self._images.used_by(order.image, folder / RECORD)
                self._records.write(record)
                if frozen is not None:
                    await self._clone(record, folder, frozen)
        await self.start(order.name)

    async def freeze(self, image: str, memory_bytes: int) -> bool:
        """A machine of this image is booted and frozen, unless one is there (then False): from then on machines of
        this image and memory are its clones, which saves their boot. Raises HostRefused, HostFailed."""
        of_image = self._images.chain(image)[0]
        await self.open()
        kind = await self._kind(memory_bytes)
        if booted.found(of_image, kind) is not None:
            return False
        await booted.freeze(of_image, kind, memory_bytes, self.accelerator, self._now)
        return True

    async def _kind(self, memory_bytes: int) -> str:
        return await booted.kind(self.accelerator, processor()[1], memory_bytes)

    async def _clone(self, record: Record, folder: Path, frozen: booted.Booted) -> None:
        """Where that fails, its disk boots as any other."""
        try:
            await self._launch(record, folder, frozen.memory)
            await booted.restore(folder, frozen)
            await booted.wake(folder, self._now().timestamp())
            log.info("machine %s is a clone of what is frozen of %s", record.name, record.image)
        except HostFailed as error:
            log.warning("machine %s is booted instead of cloned: %s", record.name, error)
            await self._cut(record.name)

    async def start(self, name: str) -> None:
        async with self._locked(name):
            record, folder = self._known(name), self._records.of(name)
            if self._processes(name):
                return
            await self._launch(record, folder)

    async def _launch(self, record: Record, folder: Path, memory: Memory | None = None) -> None:
        image = self._images.chain(record.image)[0]
        for stale in (QMP_SOCKET, WAKE_SOCKET, "qemu.pid"):
            (folder / stale).unlink(missing_ok=True)
        argv = qemu_argv(record, folder, image, self._process_name(record.name), self.accelerator, memory)
        await run([*await self._launcher(), *argv], folder=folder, output=folder / "qemu.log")

    async def _launcher(self) -> list[str]:
        """What puts a QEMU under guard; the rules anew, for whoever may have flushed them."""
        if self._admitted is None:
            return []
        return ["sh", "-c", _GUARDED, str(await self._guard.up(self._admitted, self._folder / GUARD_RULES))]

    async def stop(self, name: str, force: bool = False) -> None:
        """A system that has hardly begun does not hear it, as with any power button: it is asked again."""
        if force:
            await self._cut(name)
        elif self._processes(name):
            try:
                await ask(self._socket(name), "system_powerdown")
            except HostFailed:
                if not await self._ends(name):
                    raise

    async def destroy(self, name: str) -> None:
        async with self._locked(name):
            await self._cut(name)
            self._records.discard(name)
            await self._leases.release(_own_lease(name))
        await asyncio.to_thread(self._records.empty_trash)

    async def look(self, name: str) -> HostMachine:
        record = self._records.read(name)
        alive = await asyncio.to_thread(self._processes, name)
        if record is None:
            state = MachineState.UNKNOWN if alive else MachineState.GONE
            return HostMachine(name, state, f"process {alive[0]} of it runs on" if alive else "")
        state = MachineState.RUNNING if alive else MachineState.STOPPED
        detail = f"QEMU ({self.accelerator}) is process {alive[0]}" if alive else ""
        return HostMachine(
            name, state, detail, record.address, record.image, record.memory_bytes, record.labels, record.created_at
        )

    async def machines(self) -> Sequence[HostMachine]:
        return [await self.look(name) for name in self._records.names()]

    async def let_in(self, name: str, published: bool) -> None:
        async with self._locked(name):
            record = self._known(name)
            wanted = replace(record, published=published)
            if wanted != record and self._processes(name):
                await self._forward(record, wanted)
            self._records.write(wanted)

    async def set_address(self, name: str, address: HostAddress | None) -> None:
        async with self._locked(name):
            record = self._known(name)
            if address == record.address or (address is None and record.own_address):
                return
            own = address is None
            given = await self._leases.lease(_own_lease(name)) if address is None else address
            if self._processes(name):
                await self._forward(record, replace(record, address=given))
            self._records.write(replace(record, address=given, own_address=own))
            if not own:
                await self._leases.release(_own_lease(name))

    async def snapshot(self, name: str, image: str) -> None:
        async with self._locked(name):
            record = self._known(name)
            if self._processes(name):
                raise HostRefused(f"Machine {name} runs: it is stopped before an image is made of it.")
            parent = self._images.chain(record.image)[0]
            disk = self._records.of(name) / DISK
            await self._images.add(
                image, record.image, self._now(), lambda content: snapshot_disk(parent, disk, content)
            )

    async def images(self) -> Sequence[HostImage]:
        return [seen(image) for image in await asyncio.to_thread(self._images.all)]

    async def remove_image(self, name: str) -> None:
        await asyncio.to_thread(self._images.remove, name)

    def _locked(self, name: str) -> AbstractAsyncContextManager[None]:
        """Machines share a few locks, whose files stay: one removed while another waits for it would lock nothing."""
        number = int(hashlib.sha256(checked_name(name).encode()).hexdigest(), 16) % LOCKS
        return locked(self._folder / "locks" / str(number))

    def _known(self, name: str) -> Record:
        record = self._records.read(name)
        if record is None:
            raise HostRefused(f"There is no machine {name} on this host.")
        return record

    def _process_name(self, name: str) -> str:
        return f"tinyfat-{self._key}-{checked_name(name)}"

    def _processes(self, name: str) -> list[int]:
        """By their command lines, whoever started them; a zombie has none."""
        wanted = f"\0-name\0{self._process_name(name)}\0".encode()
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if wanted in file.read_bytes():
                    found.append(int(file.parent.name))
        return found

    def _socket(self, name: str) -> Path:
        return self._records.of(name) / QMP_SOCKET

    async def _cut(self, name: str) -> None:
        deadline = asyncio.get_running_loop().time() + KILL_SECONDS_MAX
        while alive := await asyncio.to_thread(self._processes, name):
            if asyncio.get_running_loop().time() > deadline:
                raise HostFailed(f"QEMU of machine {name}, process {alive[0]}, does not die.")
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(KILL_POLL_SECONDS)

    async def _ends(self, name: str) -> bool:
        """A QEMU that was told to end closes its socket a moment before it does."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS_MAX
        while await asyncio.to_thread(self._processes, name):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(KILL_POLL_SECONDS)
        return True

    async def _forward(self, before: Record, after: Record) -> None:
        """Twice is once: what is forwarded already stays so."""
        socket = self._socket(after.name)
        for port in ports(before):
            if before.address != after.address or port not in ports(after):
                await monitor(socket, f"hostfwd_remove n0 tcp:{before.address.ipv4}:{port}")
        for port in ports(after):
            said = await monitor(socket, f"hostfwd_add n0 tcp:{after.address.ipv4}:{port}-:{port}")
            if said and not await self._is_forwarded(socket, after.address.ipv4, port):
                raise HostFailed(f"{after.address.ipv4}:{port} cannot be forwarded to machine {after.name}: {said}")

    async def _is_forwarded(self, socket: Path, ipv4: str, port: int) -> bool:
        """`info usernet` has a line for each: protocol, descriptor, from where, to where."""
        words = (line.split() for line in (await monitor(socket, "info usernet")).splitlines())
        return any(line[2:4] == [ipv4, str(port)] for line in words)


def _own_lease(name: str) -> str:
    return f"machine/{name}"
