"""How much of the disk folders take, as `du` says it: blocks, and a file of several names once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 512  # of st_blocks, on every system (POSIX, sys/stat.h)
LOOKS_BETWEEN_CLOCKS = 256


@dataclass(frozen=True, slots=True)
class FolderUsage:
    bytes: int
    files: int
    whole: bool  # False: time was up


def folders_usage(folders: Sequence[Path], seconds: float, clock: Callable[[], float]) -> list[FolderUsage]:
    """For a thread. All of them within so many seconds; what is not there takes nothing. Follows no link."""
    deadline = clock() + seconds
    return [_usage(folder, deadline, clock) for folder in folders]


def _usage(folder: Path, deadline: float, clock: Callable[[], float]) -> FolderUsage:
    size = files = looks = 0
    known: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    looks += 1
                    if looks % LOOKS_BETWEEN_CLOCKS == 0 and clock() > deadline:
                        return FolderUsage(size, files, False)
                    seen = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif seen.st_nlink > 1:
                        if (seen.st_dev, seen.st_ino) in known:
                            continue
                        known.add((seen.st_dev, seen.st_ino))
                    size += seen.st_blocks * BLOCK_BYTES
                    files += not entry.is_dir(follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile, or not ours to read
        if clock() > deadline and waiting:
            return FolderUsage(size, files, False)
    return FolderUsage(size, files, True)
