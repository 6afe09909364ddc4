"""Images of machines of this host, put together: `tinyfat image`. They live in the user's cache, for every home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tinyfat.box.runtime import InstallFailed
from tinyfat.domain.enrolment import BOX_USER
from tinyfat.drivers.authorities.archive import box_archive
from tinyfat.drivers.machines import baking, local_vm, nspawn
from tinyfat.drivers.machines.docker import REPOSITORY, USER_LABEL
from tinyfat.drivers.machines.docker_engine import DockerEngine
from tinyfat.machine_hosts.disks import build_disk
from tinyfat.machine_hosts.images import ImageFolder, ImageOnDisk
from tinyfat.machine_hosts.machine_host import HostRefused, MachineHostError
from tinyfat.machine_hosts.rootfs import BASE_PREFIX, bake, build_base, packed, user_ids
from tinyfat.ports.machines import MachinesError
from tinyfat.settings import Settings

DRIVERS = ("nspawn", "local_vm")
NOT_FOR_CONTAINERS = ("boot", "usr/lib/modules", "usr/lib/firmware")
PART_BYTES = 1024 * 1024
RUNTIMES = ("openclaw", "pi", "echo")


class ImageFailed(Exception):
    """An image could not be made or removed."""


def _now() -> datetime:
    return datetime.now(UTC)


async def build(settings: Settings, driver: str, runtime: str, say: Callable[[str], None]) -> ImageOnDisk:
    """Each part is made unless it is there already. Raises ImageFailed."""
    try:
        baked = await _baked(settings, runtime, say)
        if driver == "nspawn":
            return baked
        say("the disk of a virtual machine: about a minute")
        folders = _images(settings, "nspawn")
        await build_disk(_images(settings, driver), nspawn.BASE.name, folders.chain(nspawn.BASE.name), _now)
        return await build_disk(_images(settings, driver), baked.name, folders.chain(baked.name), _now)
    except (MachineHostError, InstallFailed, OSError) as error:
        raise ImageFailed(f"The image of {runtime} for {driver} was not made: {error}") from error


async def build_for_engine(settings: Settings, engine_url: str, runtime: str, say: Callable[[str], None]) -> str:
    """The same in an engine of Docker or Podman: its tag there. Raises ImageFailed."""
    try:
        baked = await _baked(settings, runtime, say)
        chain = _images(settings, "nspawn").chain(baked.name)
        user, group = user_ids(chain[-1], BOX_USER)
        engine = DockerEngine(engine_url)
        try:
            if await engine.image(f"{REPOSITORY}:{baked.name}") is None:
                say(f"into the engine at {engine_url}")
                with TemporaryDirectory(prefix="tinyfat-image-") as folder:
                    tar = Path(folder) / "image.tar"
                    await packed(chain, tar, NOT_FOR_CONTAINERS)
                    labels = [f"LABEL {USER_LABEL}={user}:{group}"]
                    await engine.import_image(REPOSITORY, baked.name, labels, _parts(tar))
        finally:
            await engine.close()
        return baked.name
    except (MachineHostError, MachinesError, InstallFailed, OSError) as error:
        raise ImageFailed(f"The image of {runtime} for the engine was not made: {error}") from error


async def _parts(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while part := await asyncio.to_thread(opened.read, PART_BYTES):
            yield part


async def _baked(settings: Settings, runtime: str, say: Callable[[str], None]) -> ImageOnDisk:
    images = _images(settings, "nspawn")
    say(f"Debian: {nspawn.BASE.name} (about a minute where it is not there yet)")
    base = await build_base(images, nspawn.BASE, _now, settings.cache / "images" / "mmdebstrap.log")
    box = await asyncio.to_thread(box_archive)
    made = await baking.ingredients(runtime, box, settings.cache / "runtimes", say)
    name = made.image_name(base.name)
    say(f"image: {name}")
    with baking.laid(made) as parts:
        return await bake(images, name, base, parts, _now)


def listed(settings: Settings, driver: str) -> Sequence[ImageOnDisk]:
    """The newest first, the base included. Raises ImageFailed."""
    try:
        return _images(settings, driver).all()
    except MachineHostError as error:
        raise ImageFailed(str(error)) from error


def prune(settings: Settings, driver: str, keep: int) -> tuple[list[str], list[str]]:
    """Removes all but the newest `keep` of what was baked, and bases that nothing lies upon any more; what a machine is
    made of stays. What went, and why what else stayed. Raises ImageFailed."""
    images = _images(settings, driver)
    baked = [one.name for one in listed(settings, driver) if not one.name.startswith(BASE_PREFIX)]
    bases = [one.name for one in listed(settings, driver) if one.name.startswith(BASE_PREFIX)]
    removed, stayed = [], []
    for name in [*baked[keep:], *(base for base in bases if base != nspawn.BASE.name)]:
        try:
            images.remove(name)
            removed.append(name)
        except HostRefused as error:
            stayed.append(str(error))
        except OSError as error:
            raise ImageFailed(f"Image {name} cannot be removed: {error}") from error
    return removed, stayed


def _images(settings: Settings, driver: str) -> ImageFolder:
    return ImageFolder({"nspawn": nspawn.images_folder, "local_vm": local_vm.images_folder}[driver](settings.cache))
