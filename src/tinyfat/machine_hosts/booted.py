"""Virtual machines that were booted once and frozen, to be cloned: a clone runs within a second, without a boot.

Beside an image's disk there is, for each kind of machine (QEMU's version, processor, memory, devices), a folder with a
disk, the memory and the devices' state of a machine of that image whose Debian is up and knows nothing yet: no seed but
an empty one, no key, no token. machine_hosts/wake runs in it and makes each clone a machine of its own.
docs/decisions/0010 has the reasons. https://www.qemu.org/docs/master/devel/migration/main.html
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from tinyfat.machine_hosts.disks import DISK, make_disk
from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.images import ImageOnDisk, in_use
from tinyfat.machine_hosts.machine_host import HostAddress, HostFailed
from tinyfat.machine_hosts.programs import run
from tinyfat.machine_hosts.qemu_command import QMP_SOCKET, WAKE_SOCKET, Memory, qemu_argv
from tinyfat.machine_hosts.qmp import ask
from tinyfat.machine_hosts.records import Record
from tinyfat.machine_hosts.seed import NETWORK_BY_DHCP, make_seed_disk, write_seed

BOOT_SECONDS_MAX = 900.0  # without KVM, on a busy host
SAVE_SECONDS_MAX = 60.0
RESTORE_SECONDS_MAX = 30.0
WAKE_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.02
RANDOM_BYTES = 64
STATE, MEMORY = "state", "memory"
_CAPABILITY = {
    "capabilities": [{"capability": "x-ignore-shared", "state": True}]
}  # memory is a file: not written twice
_PREFIX = "booted-"
_LAYOUT = 2  # raised when a frozen machine of before is no good any more
_PROGRAM = "/run/tinyfat-wake.py"
_UNIT = "tinyfat-wake"


@dataclass(frozen=True, slots=True)
class Booted:
    """One frozen machine."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def memory(self) -> Memory:
        return Memory(self.folder / MEMORY, shared=False)


async def kind(accelerator: str, processor: str, memory_bytes: int) -> str:
    """What a frozen machine can be woken on: another of these, another name. `processor`: of /proc/cpuinfo."""
    version = await run(["qemu-system-x86_64", "--version"])
    own = processor if accelerator == "kvm" else ""
    shape = qemu_argv(_record(memory_bytes), Path("/x"), _nowhere(), "x", accelerator, Memory(Path("/x"), shared=True))
    told = repr((_LAYOUT, version, accelerator, own, memory_bytes, shape, _user_data()))
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def found(image: ImageOnDisk, kind: str) -> Booted | None:
    folder = image.folder / f"{_PREFIX}{kind}"
    return Booted(folder) if (folder / STATE).is_file() else None


def outdated(image: ImageOnDisk) -> bool:
    """It has a frozen machine; asked where `found` found none."""
    return any(image.folder.glob(f"{_PREFIX}*"))


async def freeze(
    image: ImageOnDisk, kind: str, memory_bytes: int, accelerator: str, now: Callable[[], datetime]
) -> Booted:
    """Boots a machine of this image and freezes it, unless that was done before. Raises HostFailed."""
    async with locked(image.folder / f".{_PREFIX}{kind}.lock", BOOT_SECONDS_MAX + SAVE_SECONDS_MAX):
        if (there := found(image, kind)) is not None:
            return there
        work = image.folder / f".partial-{_PREFIX}{kind}-{uuid.uuid4().hex[:8]}"
        work.mkdir(mode=0o700)
        try:
            await _boot(image, work, memory_bytes, accelerator, now())
            (work / MEMORY).chmod(0o600)  # QEMU opens it to write, and maps it for itself alone
            for name in ("seed", "seed.iso", "qemu.pid", WAKE_SOCKET, QMP_SOCKET):
                left = work / name
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            work.rename(image.folder / f"{_PREFIX}{kind}")
            await asyncio.to_thread(_thaw_others, image, kind)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    made = found(image, kind)
    assert made is not None
    return made


def _thaw_others(image: ImageOnDisk, kind: str) -> None:
    """Of an older QEMU or program; unless machines are made of this image, whose disks may lie upon them."""
    if not in_use(image):
        for folder in image.folder.glob(f"{_PREFIX}*"):
            if folder.name != f"{_PREFIX}{kind}":
                shutil.rmtree(folder, ignore_errors=True)


async def _boot(image: ImageOnDisk, work: Path, memory_bytes: int, accelerator: str, at: datetime) -> None:
    record = _record(memory_bytes, at)
    await make_disk(image.content / DISK, work / DISK)
    write_seed(work / "seed", record, _user_data(), NETWORK_BY_DHCP)
    await make_seed_disk(work)
    name = f"tinyfat-freeze-{work.name[-8:]}"
    argv = qemu_argv(record, work, image, name, accelerator, Memory(work / MEMORY, shared=True))
    await run(argv, folder=work, output=work / "qemu.log")
    try:
        await heard(work / WAKE_SOCKET, b"ready", BOOT_SECONDS_MAX)
        qmp = work / QMP_SOCKET
        await ask(qmp, "stop")
        await ask(qmp, "migrate-set-capabilities", _CAPABILITY)
        await ask(qmp, "migrate", {"uri": f"exec:cat >{shlex.quote(str(work / f'{STATE}.new'))}"})
        await _done(qmp, "completed", SAVE_SECONDS_MAX)
        (work / f"{STATE}.new").rename(work / STATE)
    finally:
        await _ended(work)


async def restore(folder: Path, booted: Booted) -> None:
    """Into a QEMU that waits for it (see Memory); then it runs, and nobody has woken it. Raises HostFailed."""
    qmp = folder / QMP_SOCKET
    await ask(qmp, "migrate-set-capabilities", _CAPABILITY)
    await ask(qmp, "migrate-incoming", {"uri": f"exec:cat {shlex.quote(str(booted.folder / STATE))}"})
    await _done(qmp, "completed", RESTORE_SECONDS_MAX)
    await ask(qmp, "cont")


async def wake(folder: Path, seconds_now: float) -> None:
    """It learns that it is a clone: the time (Unix, seconds) and randomness of its own, then its seed. HostFailed."""
    word = {"now": seconds_now, "random": os.urandom(RANDOM_BYTES).hex()}
    await heard(folder / WAKE_SOCKET, b"awake", WAKE_SECONDS_MAX, json.dumps(word).encode() + b"\n")


async def heard(socket: Path, word: bytes, seconds: float, said: bytes = b"") -> None:
    """Says `said` to the guest and waits for its line `word`. Raises HostFailed."""
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{socket.name}")
            try:
                writer.write(said)
                await writer.drain()
                while (line := await reader.readline()).strip() != word:
                    if not line:
                        raise HostFailed(f"The guest at {socket} ended before it said {word.decode()}.")
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError) as error:
        words = str(error) or type(error).__name__
        raise HostFailed(f"The guest at {socket} did not say {word.decode()} within {seconds:g} s: {words}") from error
    finally:
        os.close(folder)


async def _done(qmp: Path, wanted: str, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        told: dict[str, Any] = await ask(qmp, "query-migrate")
        status = told.get("status", "none")
        if status == wanted:
            return
        if status in ("failed", "cancelled") or asyncio.get_running_loop().time() > deadline:
            raise HostFailed(f"QEMU's state at {qmp} is {status}: {told.get('error-desc', 'no reason given')}")
        await asyncio.sleep(LOOK_SECONDS)


async def _ended(work: Path) -> None:
    """Killed by its process id: a frozen machine has nothing to lose."""
    file = work / "qemu.pid"
    if not file.is_file():
        return
    pid = int(file.read_text())
    deadline = asyncio.get_running_loop().time() + SAVE_SECONDS_MAX
    while str(work) in _command_line(pid):
        os.kill(pid, 9)
        if asyncio.get_running_loop().time() > deadline:
            raise HostFailed(f"QEMU, process {pid}, does not die.")
        await asyncio.sleep(LOOK_SECONDS)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _user_data() -> str:
    """What every frozen machine is booted with. Nothing of cloud-init's runs but what makes the disk as large as it is,
    so that users, keys and names are each clone's own."""
    program = resources.files("tinyfat.machine_hosts").joinpath("wake.py").read_text("utf-8")
    config = {
        "write_files": [{"path": _PROGRAM, "permissions": "0700", "content": program}],
        "runcmd": [
            ["systemd-run", f"--unit={_UNIT}", "--property=After=cloud-init.target", "--no-block", "--collect",
             "/usr/bin/python3", _PROGRAM],
        ],
        "cloud_init_modules": ["write-files", "growpart", "resizefs"],
        "cloud_config_modules": ["runcmd"],
        "cloud_final_modules": ["scripts-user"],
    }  # fmt: skip
    return "#cloud-config\n" + json.dumps(config) + "\n"  # JSON is YAML


def _record(memory_bytes: int, at: datetime | None = None) -> Record:
    """Without an address nothing is forwarded to it."""
    return Record("frozen", "", "frozen", memory_bytes, at or datetime.min, "frozen", HostAddress(""), True)


def _nowhere() -> ImageOnDisk:
    return ImageOnDisk("x", "", datetime.min, 0, Path("/x"))
