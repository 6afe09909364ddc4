"""What is baked into an image of ours, in the layout of domain/enrolment: the box, and node with a runtime.

It is copied from this host, where it was installed by its lock files: so an image is made without a builder machine,
and a machine of it starts without a package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tinyfat.box.baked import pack
from tinyfat.box.fetch_box import unpack
from tinyfat.box.runtime import Progress
from tinyfat.box.runtimes.install import install, node_home, package
from tinyfat.box.runtimes.node import node_version
from tinyfat.domain.enrolment import BOX_FOLDER, BOX_USER, CURRENT, NODE_FOLDER, RUNTIMES_FOLDER
from tinyfat.drivers.authorities.archive import BoxArchive
from tinyfat.machine_hosts.rootfs import BASE_PREFIX, Laid

NO_NPM = ("echo",)  # runtimes that come with the box itself
_NODE_PARTS = ("bin", "lib")  # of the wheel's folder; the rest is for building
_RUNTIME_PARTS = ("node_modules", "package.json", "package-lock.json")  # its cache is of this host's paths


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What one image is made of; `folder` on this host, for runtimes from npm."""

    runtime: str
    box: BoxArchive
    folder: Path | None

    def image_name(self, base: str) -> str:
        """Another content, another name: e.g. openclaw-2026.9.6-78fb54d8-box-1a2b3c4d-debian-5e6f7a8b."""
        runtime = self.folder.name if self.folder else self.runtime
        return f"{runtime}-box-{self.box.sha256[:8]}-debian-{base.removeprefix(BASE_PREFIX)}"


async def ingredients(runtime: str, box: BoxArchive, shared: Path, progress: Progress) -> Ingredients:
    """Installs the runtime into `shared` where it is not there yet. Raises InstallFailed."""
    if runtime in NO_NPM:
        return Ingredients(runtime, box, None)
    return Ingredients(runtime, box, await install(package(runtime), shared, progress))


@contextmanager
def laid(made: Ingredients) -> Iterator[Sequence[Laid]]:
    """The parts, as long as they are needed: the box is unpacked for that time."""
    with TemporaryDirectory(prefix="tinyfat-bake-") as folder:
        box = Path(folder) / made.box.sha256
        unpack(made.box.data, box)
        parts = [
            Laid(BOX_FOLDER),
            Laid(f"{BOX_FOLDER}/{made.box.sha256}", box),
            Laid(f"{BOX_FOLDER}/{CURRENT}", link_to=made.box.sha256),
            Laid(NODE_FOLDER, owner=BOX_USER),
            Laid(RUNTIMES_FOLDER, owner=BOX_USER),
        ]
        yield [*parts, *(_from_npm(made.folder) if made.folder else ())]


def packed(made: Ingredients, file: Path) -> str:
    """Node and the runtime as one file, for a machine elsewhere; its SHA-256."""
    assert made.folder is not None, "this runtime comes with the box"
    return pack([(one.path, one.source) for one in _from_npm(made.folder) if one.source], file)


def _from_npm(folder: Path) -> Iterator[Laid]:
    version, target = node_version(), f"{RUNTIMES_FOLDER}/{folder.name}"
    yield Laid(f"{NODE_FOLDER}/{version}", owner=BOX_USER)
    yield from (Laid(f"{NODE_FOLDER}/{version}/{part}", node_home() / part, owner=BOX_USER) for part in _NODE_PARTS)
    yield Laid(f"{NODE_FOLDER}/{CURRENT}", link_to=version, owner=BOX_USER)
    yield Laid(target, owner=BOX_USER)
    yield from (Laid(f"{target}/{part}", folder / part, owner=BOX_USER) for part in _RUNTIME_PARTS)
