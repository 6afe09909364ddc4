"""Images on disk: each a folder with its description and its content, made aside and put in place whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.machine_host import HostFailed, HostImage, HostRefused

BUILD_SECONDS_MAX = 3600.0  # how long one waits for another process that builds the same image
PARENTS_MAX = 12  # an overlay of more folders than that is refused
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
_DESCRIPTION = "image.json"
_USERS = "machines"  # links to the records of machines made of it


@dataclass(frozen=True, slots=True)
class ImageOnDisk:
    name: str
    parent: str  # the image it lies upon; "": none
    created_at: datetime
    bytes: int  # its own, without its parents'
    folder: Path

    @property
    def content(self) -> Path:
        return self.folder / "content"


class ImageFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> ImageOnDisk | None:
        if not _NAME.fullmatch(name):
            raise HostRefused(f"{name!r} cannot be an image's name: a-z, 0-9, . and -, at most 100 characters.")
        file = self.folder / name / _DESCRIPTION
        try:
            body = json.loads(file.read_text())
            at = datetime.fromisoformat(body["created_at"])
            return ImageOnDisk(name, str(body["parent"]), at, int(body["bytes"]), file.parent)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HostFailed(f"{file} cannot be read: {error}. Remove the folder and build the image again.") from error

    def chain(self, name: str) -> list[ImageOnDisk]:
        """The image and what it lies upon, itself first. Raises HostRefused where one is missing."""
        chain: list[ImageOnDisk] = []
        while name and len(chain) <= PARENTS_MAX:
            image = self.read(name)
            if image is None:
                raise HostRefused(f"There is no image {name}: tinyfat image build makes one, tinyfat image list lists.")
            chain.append(image)
            name = image.parent
        if name:
            raise HostRefused(f"Image {chain[0].name} lies upon more than {PARENTS_MAX} others: build it anew.")
        return chain

    def all(self) -> list[ImageOnDisk]:
        """The newest first."""
        found = [self.read(file.parent.name) for file in self.folder.glob(f"[a-z0-9]*/{_DESCRIPTION}")]
        return sorted((image for image in found if image), key=lambda image: image.created_at, reverse=True)

    async def add(
        self, name: str, parent: str, at: datetime, fill: Callable[[Path], Awaitable[None]], *, fresh: bool = False
    ) -> ImageOnDisk:
        """`fill` makes the folder or file it is given. Where the image is there already nothing is done."""
        async with locked(self.folder / f".{name}.lock", BUILD_SECONDS_MAX):
            if (there := self.read(name)) is not None and not fresh:
                return there
            work = self.folder / f".partial-{name}-{uuid.uuid4().hex[:8]}"
            work.mkdir(mode=0o700)
            try:
                await fill(work / "content")
                body = {"parent": parent, "created_at": at.isoformat(), "bytes": disk_bytes(work / "content")}
                (work / _DESCRIPTION).write_text(json.dumps(body))
                work.rename(self.folder / name)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        made = self.read(name)
        assert made is not None
        return made

    def used_by(self, name: str, record: Path) -> None:
        """A machine of any installation is made of it, as long as its record is there."""
        folder = self.folder / name / _USERS
        folder.mkdir(exist_ok=True)
        link = folder / hashlib.sha256(str(record).encode()).hexdigest()[:32]
        with suppress(FileExistsError):
            link.symlink_to(record)

    def remove(self, name: str) -> None:
        """Raises HostRefused while another image lies upon it, or a machine is made of it."""
        image = self.read(name)
        if image is None:
            return
        if machines := in_use(image):
            raise HostRefused(f"Image {name} stays: machine {', '.join(machines)} is made of it.")
        upon = [image.name for image in self.all() if image.parent == name]
        if upon:
            raise HostRefused(f"Image {name} stays: {', '.join(upon)} lies upon it.")
        trash = self.folder / f".trash-{name}-{uuid.uuid4().hex[:8]}"
        (self.folder / name).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
        (self.folder / f".{name}.lock").unlink(missing_ok=True)


def fresh_folder(path: Path) -> Path:
    """Empty, whatever was there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def in_use(image: ImageOnDisk) -> list[str]:
    """The names of the machines that are made of it."""
    return [link.readlink().parent.name for link in (image.folder / _USERS).glob("*") if link.exists()]


def seen(image: ImageOnDisk) -> HostImage:
    return HostImage(image.name, image.created_at, image.bytes)


def disk_bytes(path: Path) -> int:
    """What it takes on disk, links counted once."""
    if path.is_file():
        return path.lstat().st_blocks * 512
    found: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(path):
        for file in (folder, *(os.path.join(folder, name) for name in files)):
            stat = os.lstat(file)
            found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())
