"""What we ask of this host's disks."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tinyfat.domain.disks import DiskReading


class DiskUnread(Exception):
    """Nothing could be read of it. The text is for people."""


class Disks(Protocol):
    async def read(self, path: Path) -> DiskReading:
        """Of the disk this path lies on, or would. Within a bounded time. Raises DiskUnread."""
