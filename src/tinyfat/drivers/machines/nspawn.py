"""Machines that are systemd containers of this host, by root, found again in a folder: `hosted` drives them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tinyfat.domain.enrolment import BOX_USER, STATE_FOLDER
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.machine_hosts.rootfs import BaseRecipe

BASE = BaseRecipe((BOX_USER,), STATE_FOLDER)


def images_folder(cache: Path) -> Path:
    """`cache`: this user's caches of ours. Images are named by what is in them, so installations share them."""
    return cache / "images" / "nspawn"


def nspawn_host(home: Path, cache: Path) -> NspawnHost:
    """Its `open` must have been called before a control plane can listen on its `gateway`."""
    return NspawnHost(home / "nspawn", images_folder(cache), lambda: datetime.now(UTC))
