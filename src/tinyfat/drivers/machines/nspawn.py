"""Machines that are systemd containers of this host, by root, found again in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tinyfat.domain.enrolment import BOX_USER, STATE_FOLDER
from tinyfat.domain.machines import MachineOrder
from tinyfat.drivers.machines.hosted import MEMORY_BYTES, HostedServers
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.machine_hosts.rootfs import BaseRecipe

BASE = BaseRecipe((BOX_USER,), STATE_FOLDER)


def images_folder(cache: Path) -> Path:
    """`cache`: this user's caches of ours. Images are named by what is in them, so installations share them."""
    return cache / "images" / "nspawn"


def nspawn_host(home: Path, cache: Path) -> NspawnHost:
    """Its `open` must have been called before a control plane can listen on its `gateway`."""
    return NspawnHost(home / "nspawn", images_folder(cache), lambda: datetime.now(UTC))


def nspawn_servers(
    host: NspawnHost,
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
