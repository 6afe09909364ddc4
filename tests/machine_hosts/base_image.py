"""The base image for tests: built once for this user's cache, then shared as links by every test's own folder."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

from tinyfat.drivers.machines import local_vm, nspawn
from tinyfat.machine_hosts.disks import build_disk
from tinyfat.machine_hosts.images import ImageFolder, ImageOnDisk
from tinyfat.machine_hosts.rootfs import build_base
from tinyfat.settings import Settings


async def base_image(images: ImageFolder) -> str:
    """Its name, in `images`."""
    return _linked(await _built(), images)


async def base_disk(images: ImageFolder, *, frozen: bool = True) -> str:
    """The same as a virtual machine's disk. `frozen`: what another test froze of it is there, too."""
    built = await _built()
    disks = ImageFolder(local_vm.images_folder(Settings().cache))
    disk = await build_disk(disks, built.name, [built], lambda: datetime.now(UTC))
    return _linked(disk, images) if frozen else as_built(disk, images)


def as_built(image: ImageOnDisk, images: ImageFolder) -> str:
    """In `images` nothing of it is frozen, whatever is where it was built: a machine of it boots until it is frozen
    there. Its name."""
    folder = images.folder / image.name
    folder.mkdir(parents=True)
    (folder / "content").symlink_to(image.content.resolve())
    shutil.copyfile(image.folder / "image.json", folder / "image.json")
    return image.name


async def _built() -> ImageOnDisk:
    cache = Settings().cache
    images = ImageFolder(nspawn.images_folder(cache))
    return await build_base(images, nspawn.BASE, lambda: datetime.now(UTC), cache / "images" / "mmdebstrap.log")


def _linked(built: ImageOnDisk, images: ImageFolder) -> str:
    images.folder.mkdir(parents=True, exist_ok=True)
    (images.folder / built.name).symlink_to(built.folder)
    return built.name
