"""Machines that are virtual machines of this host, under QEMU, found again in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tinyfat.domain.machines import MachineOrder
from tinyfat.drivers.machines.hosted import MEMORY_BYTES, HostedServers
from tinyfat.drivers.machines.nspawn import BASE
from tinyfat.machine_hosts.qemu import QemuHost


def images_folder(cache: Path) -> Path:
    """`cache`: this user's caches of ours. Images are named by what is in them, so installations share them."""
    return cache / "images" / "local_vm"


def local_vm_host(home: Path, cache: Path) -> QemuHost:
    """A control plane that listens on this host's 127.0.0.1 is dialled at its `gateway`."""
    return QemuHost(home / "local_vm", images_folder(cache), lambda: datetime.now(UTC))


def local_vm_servers(
    host: QemuHost,
    installation: str,
    user_data: Callable[[MachineOrder], str],
    *,
    memory_bytes: int = MEMORY_BYTES,
    month_price: int = 0,
) -> HostedServers:
    """`month_price`: nano-dollars that a machine is said to cost, which is 0 in truth."""
    return HostedServers(
        host,
        installation,
        user_data,
        time.monotonic,
        plain_image=BASE.name,
        memory_bytes=memory_bytes,
        month_price=month_price,
    )
