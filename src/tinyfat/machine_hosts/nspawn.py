"""Machines that are systemd containers: real systemd, cloud-init and sshd within seconds. Linux, root.

The quick stand-in for a rented server; who has root inside is kept in by the kernel's namespaces and a smaller set of
capabilities, not by a wall to trust a stranger behind. A machine's disk is an overlay over its image, mounted in a
namespace that ends with its last process: so a dead machine leaves a folder and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil

from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts.cgroups import Cgroup, hierarchies, remove_parents
from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.images import ImageFolder, seen
from tinyfat.machine_hosts.leases import Leases
from tinyfat.machine_hosts.machine_host import HostAddress, HostFailed, HostImage, HostMachine, HostOrder, HostRefused
from tinyfat.machine_hosts.networks import Bridge
from tinyfat.machine_hosts.programs import require, run
from tinyfat.machine_hosts.records import RECORD, Record, RecordFolder, checked_name, write_private
from tinyfat.machine_hosts.seed import NETWORK_BY_HOST, write_seed

PROGRAMS = {"systemd-nspawn": "systemd-container", "ip": "iproute2", "unshare": "util-linux", "setsid": "util-linux"}
POWER_OFF = signal.SIGRTMIN + 4  # systemd(1): to its process 1; may be said more than once
REBOOT_EXIT = 133  # of systemd-nspawn --keep-unit: the system inside wants to start again
CONSOLE_CHARS_SHOWN = 300
LAYERS_CHARS_MAX = 3500  # the kernel takes a page of mount options
COPY_SECONDS_MAX = 600.0
LOCKS = 16
_SEED = "/var/lib/cloud/seed/nocloud"
_NETWORK_FILE = "/etc/systemd/network/05-provider.network"


class NspawnHost:
    """Implements MachineHost."""

    moves_addresses_live = False

    def __init__(self, folder: Path, images: Path, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._records = RecordFolder(folder / "machines")
        self._images = ImageFolder(images)
        self._now = now
        self._bridge = Bridge(folder)
        self._gateway: HostAddress | None = None
        self._leases: Leases | None = None
        self._hierarchies = hierarchies(Path("/proc/self/mounts").read_text())

    @property
    def gateway(self) -> HostAddress:
        if self._gateway is None:
            raise HostFailed("The network of the containers is not up yet: open() makes it.")
        return self._gateway

    async def open(self) -> None:
        if os.geteuid() != 0:
            raise HostRefused(
                "Containers of systemd need root: run tinyfat as root, or choose another kind of machine."
            )
        require(PROGRAMS)
        nobody = not self._records.names() and not Leases(self._folder, (), self._now).all()
        subnet = await self._bridge.up(movable=nobody)
        self._gateway = subnet.gateway
        self._leases = Leases(self._folder, subnet.pool, self._now)

    async def close(self) -> None:
        await asyncio.to_thread(self._records.empty_trash)
        if self._records.names():
            return
        await self._bridge.down()
        remove_parents(self._hierarchies)

    async def lease(self, name: str) -> HostAddress:
        return await (await self._opened()).lease(name)

    async def release(self, name: str) -> None:
        await (await self._opened()).release(name)

    async def leases(self) -> Mapping[str, HostAddress]:
        return (await self._opened()).all()

    async def create(self, order: HostOrder) -> None:
        leases = await self._opened()
        self._lower(order.image)
        async with self._locked(order.name):
            if self._records.read(order.name) is None:
                address = order.address or await leases.lease(_own_lease(order.name))
                record = self._records.make(order, address, self._now())
                folder = self._records.of(order.name)
                for name in ("upper", "work", "root"):
                    (folder / name).mkdir()
                write_seed(folder / "seed", record, order.user_data, NETWORK_BY_HOST)
                self._images.used_by(order.image, folder / RECORD)
                self._records.write(record)
        await self.start(order.name)

    async def start(self, name: str) -> None:
        await self._opened()
        async with self._locked(name):
            record = self._known(name)
            cgroup = self._cgroup(name)
            if cgroup.processes():
                return
            subnet = await self._bridge.up()
            folder = self._records.of(name)
            write_private(folder / "provider.network", subnet.interface_file(record.address))
            (folder / "provider.network").chmod(0o644)  # networkd reads it as a user of its own
            (folder / "console.log").unlink(missing_ok=True)
            cgroup.remove()
            entries = cgroup.make(record.memory_bytes)
            script = launch_script(
                record, folder, self._lower(record.image), self._bridge.name, entries, cgroup.machine_procs
            )
            await run(["sh", "-c", script], output=folder / "console.log")

    async def stop(self, name: str, force: bool = False) -> None:
        """A system that has hardly begun does not hear it, as with any power button: it is asked again."""
        cgroup = self._cgroup(name)
        if force:
            await self._cut(name, cgroup)
        elif (system := await asyncio.to_thread(_system, cgroup)) is not None:
            with suppress(ProcessLookupError):
                os.kill(system, POWER_OFF)

    async def destroy(self, name: str) -> None:
        leases = await self._opened()
        async with self._locked(name):
            cgroup = self._cgroup(name)
            await self._cut(name, cgroup)
            cgroup.remove()
            self._records.discard(name)
            await leases.release(_own_lease(name))
        await asyncio.to_thread(self._records.empty_trash)

    async def look(self, name: str) -> HostMachine:
        record = self._records.read(name)
        alive = await asyncio.to_thread(self._cgroup(name).processes)
        if record is None:
            state = MachineState.UNKNOWN if alive else MachineState.GONE
            return HostMachine(name, state, f"processes {sorted(alive)[:5]} of it run on" if alive else "")
        state = MachineState.RUNNING if alive else MachineState.STOPPED
        detail = f"{len(alive)} processes" if alive else self._last_words(name)
        return HostMachine(
            name, state, detail, record.address, record.image, record.memory_bytes, record.labels, record.created_at
        )

    async def machines(self) -> Sequence[HostMachine]:
        return [await self.look(name) for name in self._records.names()]

    async def let_in(self, name: str, published: bool) -> None:
        """Nothing stands before a container but its own firewall."""
        self._known(name)

    async def set_address(self, name: str, address: HostAddress | None) -> None:
        leases = await self._opened()
        async with self._locked(name):
            record = self._known(name)
            if address == record.address or (address is None and record.own_address):
                return
            if self._cgroup(name).processes():
                raise HostRefused(f"Machine {name} runs: it is stopped before its address changes.")
            own = address is None
            given = await leases.lease(_own_lease(name)) if address is None else address
            self._records.write(replace(record, address=given, own_address=own))
            if not own:
                await leases.release(_own_lease(name))

    async def snapshot(self, name: str, image: str) -> None:
        async with self._locked(name):
            record = self._known(name)
            if self._cgroup(name).processes():
                raise HostRefused(f"Machine {name} runs: it is stopped before an image is made of it.")
            upper = self._records.of(name) / "upper"

            async def fill(content: Path) -> None:
                argv = ["cp", "--archive", "--reflink=auto", str(upper), str(content)]
                await run(argv, seconds=COPY_SECONDS_MAX)

            await self._images.add(image, record.image, self._now(), fill)

    async def images(self) -> Sequence[HostImage]:
        return [seen(image) for image in await asyncio.to_thread(self._images.all)]

    async def remove_image(self, name: str) -> None:
        await asyncio.to_thread(self._images.remove, name)

    async def _opened(self) -> Leases:
        if self._leases is None:
            await self.open()
        assert self._leases is not None
        return self._leases

    def _locked(self, name: str) -> AbstractAsyncContextManager[None]:
        """Machines share a few locks, whose files stay: one removed while another waits for it would lock nothing."""
        number = int(hashlib.sha256(checked_name(name).encode()).hexdigest(), 16) % LOCKS
        return locked(self._folder / "locks" / str(number))

    def _known(self, name: str) -> Record:
        record = self._records.read(name)
        if record is None:
            raise HostRefused(f"There is no machine {name} on this host.")
        return record

    def _cgroup(self, name: str) -> Cgroup:
        return Cgroup(f"{self._bridge.name.removeprefix('tinyfat-')}-{checked_name(name)}", self._hierarchies)

    def _lower(self, image: str) -> str:
        """The folders of the image and of those below it, as overlay's lowerdir wants them."""
        folders = [str(one.content).replace("\\", "\\\\").replace(":", "\\:") for one in self._images.chain(image)]
        lower = ":".join(folders)
        if len(lower) > LAYERS_CHARS_MAX or "," in lower:
            raise HostRefused(f"Image {image} lies upon too many others, or in a folder with a comma: build it anew.")
        return lower

    async def _cut(self, name: str, cgroup: Cgroup) -> None:
        if not await asyncio.to_thread(cgroup.kill):
            raise HostFailed(f"Processes {sorted(cgroup.processes())[:5]} of machine {name} do not die.")

    def _last_words(self, name: str) -> str:
        try:
            text = (self._records.of(name) / "console.log").read_bytes()[-CONSOLE_CHARS_SHOWN:]
        except OSError:
            return ""
        lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def _system(cgroup: Cgroup) -> int | None:
    """Process 1 of the system inside, by its number here. systemd-nspawn itself, told to end twice, cuts the power."""
    supervisor = cgroup.supervisor()
    with suppress(psutil.Error):
        children = psutil.Process(supervisor).children() if supervisor else []
        return next((child.pid for child in children), None)
    return None


def launch_script(
    record: Record, folder: Path, lower: str, bridge: str, entries: Sequence[Path], machine_procs: Sequence[Path]
) -> str:
    """Enters the machine's control groups, mounts its disk where only it sees it, and runs its system again as often as
    that reboots. It ends at once; what it started lives on, whatever becomes of us."""
    enter = " && ".join(f"echo $$ > {shlex.quote(str(file))}" for file in entries)
    join = " && ".join(f"echo $$ > {shlex.quote(str(file))}" for file in machine_procs)
    options = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
    mount = shlex.join(["mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/root"])
    machine = f"{join} && exec {shlex.join(nspawn_argv(record, folder, bridge))}"
    inner = f"{mount} || exit; while :; do sh -c {shlex.quote(machine)}; [ $? -eq {REBOOT_EXIT} ] || exit; done"
    return f"{enter} && exec setsid --fork unshare --mount --propagation private sh -c {shlex.quote(inner)}"


def nspawn_argv(record: Record, folder: Path, bridge: str) -> list[str]:
    return [
        "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no", "--console=pipe",
        "--resolv-conf=off", "--timezone=off", f"--directory={folder}/root", f"--machine={_short(record)}",
        f"--hostname={record.hostname.split('.')[0]}", f"--network-bridge={bridge}",
        f"--bind-ro={folder}/seed:{_SEED}", f"--bind-ro={folder}/provider.network:{_NETWORK_FILE}",
    ]  # fmt: skip


def _short(record: Record) -> str:
    """Names the interface too, of which the kernel takes 15 characters."""
    return f"tf{hashlib.sha256(record.instance.encode()).hexdigest()[:9]}"


def _own_lease(name: str) -> str:
    return f"machine/{name}"
