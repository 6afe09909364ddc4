"""Machines that are virtual machines of this host, under QEMU, found again in a folder: `hosted` drives them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tinyfat.machine_hosts.qemu import QemuHost


def images_folder(cache: Path) -> Path:
    """`cache`: this user's caches of ours. Images are named by what is in them, so installations share them."""
    return cache / "images" / "local_vm"


def local_vm_host(home: Path, cache: Path) -> QemuHost:
    """A control plane that listens on this host's 127.0.0.1 is dialled at its `gateway`."""
    return QemuHost(home / "local_vm", images_folder(cache), lambda: datetime.now(UTC))
