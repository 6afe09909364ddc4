"""Debian as a folder, and what is laid upon it: the disks that machines of this host start from. Linux, root.

The base holds what every kind of machine needs, a kernel too, so that containers and virtual machines are the same
system. It is made from Debian's packages, once for each recipe.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tinyfat.machine_hosts.images import ImageFolder, ImageOnDisk
from tinyfat.machine_hosts.machine_host import HostFailed, HostRefused
from tinyfat.machine_hosts.programs import require, run

SUITE = "bookworm"
BASE_PREFIX = "debian-12-"  # of the names of bases
PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "procps", "linux-image-cloud-amd64"),
    *("cloud-init", "cloud-guest-utils", "e2fsprogs", "netplan.io", "iproute2", "nftables", "openssh-server"),
    *("python3", "ca-certificates", "curl", "sudo", "unattended-upgrades", "caddy"),
)
BASE_SECONDS_MAX = 1800.0
COPY_SECONDS_MAX = 600.0
# In the new root: networkd and resolved run it, cloud-init asks for no cloud, and nothing in it is one machine's own.
# Debian's unit of Caddy would serve its welcome page: ours runs it where an agent is published, and nowhere else.
_CUSTOMIZE = """
chroot "$1" systemctl -q enable systemd-networkd systemd-resolved
chroot "$1" systemctl -q mask caddy.service
printf 'datasource_list: [NoCloud, None]\\n' >"$1/etc/cloud/cloud.cfg.d/90-datasource.cfg"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/var/lib/dbus/machine-id" "$1/var/lib/systemd/random-seed"
: >"$1/etc/machine-id"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
"""


@dataclass(frozen=True, slots=True)
class Laid:
    """Something that is laid upon an image: a folder or file of this host copied, or a link made."""

    path: str  # absolute, in the image
    source: Path | None = None
    link_to: str = ""
    owner: str = "root"  # a user of the image


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    users: tuple[str, ...] = ()  # system users without a shell, e.g. tinyfat
    home: str = "/nonexistent"  # of these users

    @property
    def name(self) -> str:
        """Another recipe, another name: e.g. debian-12-1a2b3c4d."""
        digest = hashlib.sha256(repr((SUITE, PACKAGES, self.customize)).encode()).hexdigest()
        return f"{BASE_PREFIX}{digest[:8]}"

    @property
    def customize(self) -> str:
        add = 'chroot "$1" useradd --system --user-group --no-create-home --shell /usr/sbin/nologin --home-dir'
        return "set -eu\n" + "".join(f"{add} {self.home} {user}\n" for user in self.users) + _CUSTOMIZE


async def build_base(images: ImageFolder, recipe: BaseRecipe, now: Callable[[], datetime], log: Path) -> ImageOnDisk:
    """From Debian's packages, over the network: about a minute. Raises HostFailed; `log` has mmdebstrap's words."""
    if (there := images.read(recipe.name)) is not None:
        return there
    if os.geteuid() != 0:
        raise HostRefused("Debian is unpacked by root: run tinyfat image build as root.")
    require({"mmdebstrap": "mmdebstrap"})
    log.parent.mkdir(parents=True, exist_ok=True)

    async def fill(content: Path) -> None:
        argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
        argv += [f"--include={','.join(PACKAGES)}", "--aptopt=Acquire::Retries 3"]
        argv += [f"--customize-hook={recipe.customize}", SUITE, str(content)]
        await run(argv, seconds=BASE_SECONDS_MAX, output=log)

    return await images.add(recipe.name, "", now(), fill)


async def bake(
    images: ImageFolder,
    name: str,
    base: ImageOnDisk,
    laid: Sequence[Laid],
    now: Callable[[], datetime],
    beginning: Path | None = None,
) -> ImageOnDisk:
    """An image that lies upon `base` and holds `laid`. The copy takes seconds and no network. `beginning`: a folder
    that it begins as and which is moved, on the same file system; None: an empty one."""
    users = _users(base.content)

    async def fill(content: Path) -> None:
        if beginning is None:
            content.mkdir()
        else:
            beginning.rename(content)
        content.chmod(0o755)
        for one in laid:
            await _lay(content, one, users)

    return await images.add(name, base.name, now(), fill)


async def _lay(content: Path, one: Laid, users: dict[str, tuple[int, int]]) -> None:
    target = content / one.path.lstrip("/")
    if one.owner not in users:
        raise HostFailed(f"The image has no user {one.owner}, whom {one.path} is to belong to.")
    await asyncio.to_thread(_make_parents, target.parent)
    if one.source is not None:
        argv = ["cp", "--archive", "--reflink=auto", "--no-target-directory", str(one.source), str(target)]
        await run(argv, seconds=COPY_SECONDS_MAX)
    elif one.link_to:
        target.symlink_to(one.link_to)
    else:
        target.mkdir(exist_ok=True)
        target.chmod(0o755)
    await asyncio.to_thread(_give, target, *users[one.owner])


def _make_parents(folder: Path) -> None:
    """As any system has them: mode 755, whatever our umask is."""
    if not folder.exists():
        _make_parents(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _give(top: Path, user: int, group: int) -> None:
    os.lchown(top, user, group)
    for folder, folders, files in os.walk(top) if not top.is_symlink() else ():
        for name in (*folders, *files):
            os.lchown(os.path.join(folder, name), user, group)


def _users(root: Path) -> dict[str, tuple[int, int]]:
    rows = [line.split(":") for line in (root / "etc" / "passwd").read_text().splitlines()]
    return {row[0]: (int(row[2]), int(row[3])) for row in rows if len(row) > 3}


async def flattened(chain: Sequence[ImageOnDisk], target: Path) -> None:
    """One folder with what the images show together, the first on top; for disks that know no layers."""
    target.mkdir()
    lower = ":".join(str(image.content) for image in chain)
    if len(chain) == 1:
        await run(["cp", "--archive", "--reflink=auto", f"{lower}/.", str(target)], seconds=COPY_SECONDS_MAX)
        return
    merged = target.with_name(target.name + ".merged")
    merged.mkdir()
    script = 'mount -t overlay overlay -o "lowerdir=$1" "$2" && cp --archive "$2/." "$3"'
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", lower, str(merged), str(target)]
    await run(argv, seconds=COPY_SECONDS_MAX)
    await asyncio.to_thread(shutil.rmtree, merged)


async def packed(chain: Sequence[ImageOnDisk], target: Path, left_out: Sequence[str]) -> None:
    """A tar of what two images or more show together; `left_out`: folders that a container has no use for."""
    merged = target.with_name(target.name + ".merged")
    merged.mkdir()
    lower = ":".join(str(image.content) for image in chain)
    script = (
        'mount -t overlay overlay -o "lowerdir=$1" "$2" && cd "$2" && shift 2 && exec tar --numeric-owner "$@" -c .'
    )
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", lower, str(merged)]
    try:
        await run([*argv, f"--file={target}", *(f"--exclude=./{one}" for one in left_out)], seconds=COPY_SECONDS_MAX)
    finally:
        merged.rmdir()


def user_ids(image: ImageOnDisk, user: str) -> tuple[int, int]:
    """Raises HostFailed."""
    users = _users(image.content)
    if user not in users:
        raise HostFailed(f"Image {image.name} has no user {user}.")
    return users[user]
