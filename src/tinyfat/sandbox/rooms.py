"""Namespaces with a root of their own: of the host's files only what was granted is there, of its processes none.

user_namespaces(7), mount_namespaces(7), pid_namespaces(7). Needs a kernel that gives them to ordinary users; Ubuntu's
AppArmor gives them without the right to mount, which is then an OSError here.
"""

from __future__ import annotations

import os
from pathlib import Path

from tinyfat.sandbox import kernel
from tinyfat.sandbox.grants import DEVICES, Grants, reached

FLAGS = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
ROOT_BYTES_MAX = 16 * 1024**2  # of folders alone
TMP_BYTES_MAX = 512 * 1024**2  # each of /tmp and /dev/shm, in memory; $TMPDIR is on the disk
_NOTHING_SPECIAL = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_QUIET = kernel.MS_NOSUID | kernel.MS_NODEV


def remain_oneself(user: int, group: int) -> None:
    """In a new user namespace: the same numbers as outside, and nobody else's."""
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path(f"/proc/self/{file}").write_text(text)


def move_in(root: Path, grants: Grants) -> None:
    """Of a process that `kernel.clone(FLAGS)` began: build a root in the empty folder `root`, and make it ours."""
    kernel.mount("none", Path("/"), flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", _QUIET, f"size={ROOT_BYTES_MAX},mode=755")
    for name in ("tmp", "dev", "proc"):
        (root / name).mkdir()
    kernel.mount("tmpfs", root / "tmp", "tmpfs", _QUIET, f"size={TMP_BYTES_MAX},mode=1777")
    _devices(root / "dev")
    for path in reached(grants.read):
        _show(root, path, read_only=True)
    for path in (grants.own, *grants.lent):
        _show(root, path, read_only=False)
    kernel.mount("proc", root / "proc", "proc", _QUIET | kernel.MS_NOEXEC)
    (root / "proc/sys/user/max_user_namespaces").write_text("0")  # no namespace in it, where it would be root again
    kernel.mount_attributes(root / "proc", kernel.MOUNT_ATTR_RDONLY)
    kernel.mount_attributes(root, kernel.MOUNT_ATTR_RDONLY, recursive=False)
    kernel.become_root_of(root)


def _show(root: Path, path: Path, read_only: bool) -> None:
    target = root / path.relative_to("/")
    if os.path.lexists(target):
        return  # shown by what is above it
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        target.symlink_to(path.readlink())
        return
    if path.is_dir():
        target.mkdir()
    else:
        target.touch()
    kernel.mount(str(path), target, flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.mount_attributes(target, _NOTHING_SPECIAL | (kernel.MOUNT_ATTR_RDONLY if read_only else 0))


def _devices(dev: Path) -> None:
    for device in map(Path, DEVICES):
        (dev / device.name).touch()
        kernel.mount(str(device), dev / device.name, flags=kernel.MS_BIND)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    kernel.mount(
        "devpts", dev / "pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=600"
    )
    kernel.mount("tmpfs", dev / "shm", "tmpfs", _QUIET, f"size={TMP_BYTES_MAX},mode=1777")
    for name, leads_to in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        (dev / name).symlink_to(leads_to)
