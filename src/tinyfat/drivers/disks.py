"""This host's disks, by statvfs: in threads, since a disk of the network may not answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tinyfat.domain.disks import DiskReading
from tinyfat.ports.disks import DiskUnread

READ_SECONDS_MAX = 5.0


class LocalDisks:
    """Implements ports/disks Disks. A path that does not answer holds one thread, however often it is asked."""

    def __init__(self) -> None:
        self._asked: dict[Path, asyncio.Task[DiskReading]] = {}

    async def read(self, path: Path) -> DiskReading:
        reading = self._asked.get(path)
        if reading is None:
            reading = self._asked[path] = asyncio.create_task(asyncio.to_thread(read_disk, path), name=f"disk {path}")
            reading.add_done_callback(lambda _: self._asked.pop(path, None))
        try:
            async with asyncio.timeout(READ_SECONDS_MAX):
                return await asyncio.shield(reading)
        except TimeoutError:
            raise DiskUnread(f"{path} does not answer for {READ_SECONDS_MAX:.0f} s") from None
        except OSError as error:
            raise DiskUnread(f"{path}: {error.strerror}") from None


def read_disk(path: Path) -> DiskReading:
    """Raises OSError."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    seen = os.statvfs(place)
    return DiskReading(place.stat().st_dev, seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize)
