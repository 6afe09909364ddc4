"""Disks of virtual machines: an image's is whole, a machine's holds what it changed (qcow2)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from tinyfat.machine_hosts.images import ImageFolder, ImageOnDisk, disk_bytes
from tinyfat.machine_hosts.machine_host import HostFailed
from tinyfat.machine_hosts.programs import require, run
from tinyfat.machine_hosts.rootfs import flattened

DISK = "disk.qcow2"
KERNEL, INITRD = "vmlinuz", "initrd.img"
DISK_BYTES = 20 * 1024**3  # of a machine; it takes what is written
SPARE_BYTES = 256 * 1024**2  # of an image's file system, before the machine's disk lets it grow
CONVERT_SECONDS_MAX = 900.0
_PROGRAMS = {"mkfs.ext4": "e2fsprogs", "qemu-img": "qemu-utils"}


async def build_disk(
    images: ImageFolder, name: str, chain: Sequence[ImageOnDisk], now: Callable[[], datetime]
) -> ImageOnDisk:
    """A disk with what these folders show together; its kernel beside it, as QEMU boots it without a boot loader."""
    require(_PROGRAMS)

    async def fill(content: Path) -> None:
        content.mkdir()
        root, raw = content.with_name("root"), content.with_name("raw")
        await flattened(chain, root)
        for kind, kept in (("vmlinuz-*", KERNEL), ("initrd.img-*", INITRD)):
            found = sorted((root / "boot").glob(kind))
            if not found:
                raise HostFailed(f"Image {chain[0].name} holds no kernel: build it anew.")
            shutil.copyfile(found[-1], content / kept)
        bytes_ = int(await asyncio.to_thread(disk_bytes, root) * 1.15) + SPARE_BYTES
        await run(
            ["mkfs.ext4", "-q", "-F", "-d", str(root), str(raw), f"{bytes_ // 1024}k"], seconds=CONVERT_SECONDS_MAX
        )
        argv = ["qemu-img", "convert", "-O", "qcow2", str(raw), str(content / DISK)]
        await run(argv, seconds=CONVERT_SECONDS_MAX)
        for left in (root, raw):
            await asyncio.to_thread(shutil.rmtree, left) if left.is_dir() else left.unlink()

    return await images.add(name, "", now(), fill)


async def make_disk(upon: Path, disk: Path) -> None:
    """What is changed on it stays out of the disk that it lies upon, whose place is written into it: the place itself,
    for the links on the way there may go."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(upon.resolve()), str(disk)]
    await run([*argv, str(DISK_BYTES)])


async def snapshot_disk(image: ImageOnDisk, disk: Path, content: Path) -> None:
    """What a machine changed, upon the image it was made of."""
    content.mkdir()
    for name in (KERNEL, INITRD):
        shutil.copyfile(image.content / name, content / name)
    await run(["cp", "--sparse=always", str(disk), str(content / DISK)], seconds=CONVERT_SECONDS_MAX)
