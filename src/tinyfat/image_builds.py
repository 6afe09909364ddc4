"""`tinyfat image`: images made, tried, listed and pruned, for every driver. docs/decisions/0008 has the reasons."""

from __future__ import annotations

import asyncio
import platform
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from tinyfat.box.runtime import InstallFailed
from tinyfat.domain.enrolment import BOX_USER, RUNTIMES_FOLDER
from tinyfat.domain.machines import Image
from tinyfat.domain.secrets import derived
from tinyfat.drivers.authorities.archive import box_archive
from tinyfat.drivers.machines import baking, local_vm, nspawn
from tinyfat.drivers.machines.docker import REPOSITORY, USER_LABEL, DockerMachines
from tinyfat.drivers.machines.docker_engine import DockerEngine
from tinyfat.drivers.machines.hosted import MEMORY_BYTES
from tinyfat.flows.image_making import GONE_SECONDS_MAX, ImageMaking, ImageNotMade
from tinyfat.flows.watch import until
from tinyfat.image_wiring import (
    DRAFTS,
    PACKED,
    Door,
    Elsewhere,
    ReceptionTerms,
    at_hetzner,
    build_folder,
    door_from_elsewhere,
    door_of_host,
    door_of_loopback,
    hetzner,
    images_folder,
    now,
    only_build_elsewhere,
    reception_terms,
    shut_loopback,
    trial_host,
    trial_servers,
)
from tinyfat.listen_address import Address
from tinyfat.machine_hosts.disks import build_disk
from tinyfat.machine_hosts.images import ImageFolder, ImageOnDisk, fresh_folder
from tinyfat.machine_hosts.machine_host import HostRefused, MachineHost, MachineHostError
from tinyfat.machine_hosts.rootfs import BASE_PREFIX, Laid, bake, build_base, packed, user_ids
from tinyfat.ports.image_reception import Reception
from tinyfat.ports.machines import MachinesError, Servers
from tinyfat.ports.requests import ending
from tinyfat.settings import Settings

NOT_FOR_CONTAINERS = ("boot", "usr/lib/modules", "usr/lib/firmware")
PART_BYTES = 1024 * 1024
HETZNER_PLATFORM = ("linux", "x86_64")  # of the servers that the driver chooses: choice.ARCHITECTURE
PLAIN = "debian-12"  # what the provider's plain image is called in the names of ours
_IDS = uuid.UUID("5b1f6f0a-7d0e-4f0e-9a55-0c1c5d1b2f11")  # of the machines that images are made and tried with

Say: TypeAlias = Callable[[str], None]
OpenReception: TypeAlias = Callable[[ReceptionTerms], AbstractAsyncContextManager[Reception]]


class ImageFailed(Exception):
    """An image could not be made, tried, listed or removed."""


@dataclass(frozen=True, slots=True)
class Built:
    name: str
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    name: str
    bytes: int
    created_at: datetime
    parent: str = ""  # the image it lies upon
    monthly_nanodollars: int = 0


class ImageBuilds:
    def __init__(self, settings: Settings, open_reception: OpenReception, say: Say) -> None:
        self._settings, self._open_reception, self._say = settings, open_reception, say

    async def on_this_host(self, driver: str, runtime: str) -> Built:
        """Each part is made unless it is there already; what comes of it is tried. Raises ImageFailed."""
        with _told(f"The image of {runtime} for {driver} was not made"):
            async with build_folder(self._settings) as folder:
                image, fresh = await self._baked(runtime, folder)
                if driver == "local_vm":
                    self._say("the disk of a virtual machine: about a minute")
                    folders, disks = self._images("nspawn"), self._images(driver)
                    fresh = disks.read(image.name) is None
                    await build_disk(disks, nspawn.BASE.name, folders.chain(nspawn.BASE.name), now)
                    image = await build_disk(disks, image.name, folders.chain(image.name), now)
                await self._tried_on_this_host(driver, runtime, image.name, folder, fresh)
            return Built(image.name, image.bytes)

    async def in_engine(self, engine_url: str, runtime: str) -> Built:
        """The same in an engine of Docker or Podman on this host: its tag there. Raises ImageFailed."""
        with _told(f"The image of {runtime} for the engine was not made"):
            async with build_folder(self._settings) as folder:
                baked, _ = await self._baked(runtime, folder)
                engine = DockerEngine(engine_url)
                try:
                    fresh = await self._imported(engine, baked.name)
                    await self._tried_in_engine(engine, runtime, baked.name, fresh)
                finally:
                    await engine.close()
            return Built(baked.name)

    async def at_hetzner(self, runtime: str, secret: bytes, listen: Address | None, url: str) -> Built:
        """`secret`: of the home; `listen`, `url`: where the machines call, None and "" for the settings' own. Raises
        ImageFailed."""
        with _told(f"The image of {runtime} at Hetzner was not made"):
            door = door_from_elsewhere(self._settings, listen, url)
            async with (
                only_build_elsewhere(self._settings),
                build_folder(self._settings) as folder,
                hetzner(self._settings, secret) as servers,
            ):
                made = await self._ingredients(runtime)
                name = made.image_name(PLAIN)
                self._say(f"image: {name}")
                work = fresh_folder(folder / PACKED)
                there = name in {image.name for image in await servers.images()}
                packed_runtime = {} if there else await asyncio.to_thread(_packed, made, work)
                elsewhere = at_hetzner(self._settings, secret, packed_runtime)
                async with self._making(servers, door, elsewhere=elsewhere) as (making, reception):
                    if not there:
                        sha256 = next(iter(packed_runtime), "")
                        order = reception.expect(_id(secret, name, "builder"), runtime, "", sha256, makes=name)
                        await making.make(servers, order, name, sealed=True)
                    order = reception.expect(_id(secret, name, "trial"), runtime, name)
                    await making.try_out(order, name, partial(servers.remove_image, name), fresh=not there)
                found = {image.name: image.bytes for image in await servers.images()}
            return Built(name, found.get(name, 0))

    # What is baked from this host's own files.

    async def _baked(self, runtime: str, folder: Path) -> tuple[ImageOnDisk, bool]:
        """And whether it is new."""
        images = self._images("nspawn")
        self._say(f"Debian: {nspawn.BASE.name} (about a minute where it is not there yet)")
        log = self._settings.cache / "images" / "mmdebstrap.log"
        base = await build_base(images, nspawn.BASE, now, log)
        made = await self._ingredients(runtime)
        name = made.image_name(base.name)
        self._say(f"image: {name}")
        if (there := images.read(name)) is not None:
            return there, False
        with baking.laid(made) as parts:
            if made.folder is None:
                return await bake(images, name, base, parts, now), True
            draft = ImageFolder(fresh_folder(folder / DRAFTS))
            (draft.folder / base.name).symlink_to(base.folder)
            cold = await bake(draft, name, base, parts, now)
        warm = await self._warmed(runtime, cold, draft, folder, made.folder.name)
        return await bake(images, name, base, warm, now, beginning=cold.content), True

    async def _warmed(
        self, runtime: str, cold: ImageOnDisk, draft: ImageFolder, folder: Path, installed: str
    ) -> Sequence[Laid]:
        """What node has compiled of the runtime while an agent started and answered, in the image's own places."""
        self._say("the runtime is started once, for what node compiles of it")
        async with trial_host("nspawn", folder, draft.folder) as host:
            servers = trial_servers(host)
            async with self._making(servers, door_of_host("nspawn", host), host) as (making, reception):
                order = reception.expect(str(uuid.uuid4()), runtime, cold.name)
                await making.make(servers, order, f"{cold.name}-ran", sealed=False)
        ran = draft.read(f"{cold.name}-ran")
        assert ran is not None
        cache = f"{RUNTIMES_FOLDER}/{installed}/compile-cache"
        found = ran.content / cache.lstrip("/")
        return [Laid(cache, found, owner=BOX_USER)] if found.is_dir() else []

    async def _ingredients(self, runtime: str) -> baking.Ingredients:
        box = await asyncio.to_thread(box_archive)
        return await baking.ingredients(runtime, box, self._settings.cache / "runtimes", self._say)

    async def _imported(self, engine: DockerEngine, name: str) -> bool:
        """False: it was there already."""
        if await engine.image(f"{REPOSITORY}:{name}") is not None:
            return False
        chain = self._images("nspawn").chain(name)
        user, group = user_ids(chain[-1], BOX_USER)
        self._say(f"into the engine at {engine.url}")
        with TemporaryDirectory(prefix="tinyfat-image-") as folder:
            tar = Path(folder) / "image.tar"
            await packed(chain, tar, NOT_FOR_CONTAINERS)
            await engine.import_image(REPOSITORY, name, [f"LABEL {USER_LABEL}={user}:{group}"], _parts(tar))
        return True

    # What every image must show.

    async def _tried_on_this_host(self, driver: str, runtime: str, name: str, folder: Path, fresh: bool) -> None:
        async with trial_host(driver, folder, self._images(driver).folder) as host:
            servers = trial_servers(host)
            async with self._making(servers, door_of_host(driver, host), host) as (making, reception):
                order = reception.expect(str(uuid.uuid4()), runtime, name)
                await making.try_out(order, name, partial(servers.remove_image, name), fresh=fresh)

    async def _tried_in_engine(self, engine: DockerEngine, runtime: str, name: str, fresh: bool) -> None:
        machines = DockerMachines(engine, name, time.monotonic, network="host")
        async with self._making(machines, door_of_loopback()) as (making, reception):
            order = reception.expect(str(uuid.uuid4()), runtime, name)
            await making.try_out(order, name, partial(_removed_from, engine, name), fresh=fresh)

    @asynccontextmanager
    async def _making(
        self,
        machines: Servers | DockerMachines,
        door: Door,
        host: MachineHost | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> AsyncIterator[tuple[ImageMaking, Reception]]:
        async with (
            reception_terms(self._settings, door, elsewhere) as terms,
            self._open_reception(terms) as reception,
        ):
            if host is not None:
                await shut_loopback(host, terms)
            yield ImageMaking(machines, reception, self._say), reception

    def _images(self, driver: str) -> ImageFolder:
        return ImageFolder(images_folder(self._settings, driver))


async def freeze(settings: Settings, name: str, say: Say) -> None:
    """A machine of this image is booted and frozen: the virtual machines of this host that are made of it from then on
    are its clones (docs/decisions/0010). Raises ImageFailed."""
    host = local_vm.local_vm_host(settings.home, settings.cache)
    with _told(f"No machine of the image {name} was frozen"):
        say("a machine is booted and frozen, unless one is: half a minute with KVM, two to five without")
        if not await host.freeze(name, MEMORY_BYTES):
            say("one was frozen already, for this QEMU, this TinyFat and that much memory")


class ImageList:
    """What there is of one driver, and its end."""

    def __init__(self, settings: Settings, driver: str, secret: Callable[[], bytes]) -> None:
        """`secret`: of the home; asked for where images are elsewhere."""
        self._settings, self._driver, self._secret = settings, driver, secret

    async def all(self) -> Sequence[Listed]:
        """The newest first, the base included. Raises ImageFailed."""
        with _told("The images are not known"):
            if self._driver == "hetzner":
                async with hetzner(self._settings, self._secret()) as servers:
                    return [_listed(image) for image in await servers.images()]
            return [Listed(i.name, i.bytes, i.created_at, i.parent) for i in self._folder.all()]

    async def prune(self, keep: int) -> tuple[list[str], list[str]]:
        """Removes all but the newest `keep` of what was baked, and bases that nothing lies upon any more; what a
        machine is made of stays. What went, and why what else stayed. Raises ImageFailed."""
        names = [image.name for image in await self.all()]
        with _told("Not all old images were removed"):
            if self._driver == "hetzner":
                return await self._prune_at_hetzner(names[keep:])
            baked = [name for name in names if not name.startswith(BASE_PREFIX)]
            bases = [name for name in names if name.startswith(BASE_PREFIX) and name != nspawn.BASE.name]
            return self._prune_here([*baked[keep:], *bases])

    async def _prune_at_hetzner(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        removed: list[str] = []
        stayed: list[str] = []
        async with hetzner(self._settings, self._secret()) as servers:
            for name in names:
                with ending():
                    gone = await until(partial(servers.remove_image, name), GONE_SECONDS_MAX)
                (removed if gone else stayed).append(name if gone else f"{name} is still there after it was removed.")
        return removed, stayed

    def _prune_here(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        removed: list[str] = []
        stayed: list[str] = []
        for name in names:
            try:
                self._folder.remove(name)
                removed.append(name)
            except HostRefused as error:
                stayed.append(str(error))
        return removed, stayed

    @property
    def _folder(self) -> ImageFolder:
        return ImageFolder(images_folder(self._settings, self._driver))


def _listed(image: Image) -> Listed:
    return Listed(image.name, image.bytes, image.created_at, "", image.monthly_nanodollars)


def _packed(made: baking.Ingredients, folder: Path) -> dict[str, Path]:
    """By its SHA-256; nothing where this host's node would not run there: then the builder installs its own."""
    if made.folder is None or (sys.platform, platform.machine()) != HETZNER_PLATFORM:
        return {}
    file = folder / "runtime.tar.gz"
    return {baking.packed(made, file): file}


def _id(secret: bytes, image: str, what: str) -> str:
    """The same when a build is begun again: so it finds what one that was killed has left."""
    return str(uuid.uuid5(_IDS, f"{derived(secret, 'images').hex()} {image} {what}"))


async def _removed_from(engine: DockerEngine, name: str) -> bool:
    tag = f"{REPOSITORY}:{name}"
    await engine.remove_image(tag)
    return await engine.image(tag) is None


async def _parts(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while part := await asyncio.to_thread(opened.read, PART_BYTES):
            yield part


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (ImageNotMade, MachineHostError, MachinesError, InstallFailed, OSError) as error:
        raise ImageFailed(f"{what}: {error}") from error
