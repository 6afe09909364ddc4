"""The base image for tests: built once for this user's cache, then shared as links by every test's own folder."""

from __future__ import annotations

from datetime import UTC, datetime

from tinyfat.drivers.machines import local_vm, nspawn
from tinyfat.machine_hosts.disks import build_disk
from tinyfat.machine_hosts.images import ImageFolder, ImageOnDisk
from tinyfat.machine_hosts.rootfs import build_base
from tinyfat.settings import Settings


async def base_image(images: ImageFolder) -> str:
    """Its name, in `images`."""
    return _linked(await _built(), images)


async def base_disk(images: ImageFolder) -> str:
    """The same as a virtual machine's disk."""
    built = await _built()
    disks = ImageFolder(local_vm.images_folder(Settings().cache))
    return _linked(await build_disk(disks, built.name, [built], lambda: datetime.now(UTC)), images)


async def _built() -> ImageOnDisk:
    cache = Settings().cache
    images = ImageFolder(nspawn.images_folder(cache))
    return await build_base(images, nspawn.BASE, lambda: datetime.now(UTC), cache / "images" / "mmdebstrap.log")


def _linked(built: ImageOnDisk, images: ImageFolder) -> str:
    images.folder.mkdir(parents=True, exist_ok=True)
    (images.folder / built.name).symlink_to(built.folder)
    return built.name
