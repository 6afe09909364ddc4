"""A control group for each machine: what runs in it is the machine, and its memory has a limit.

Both layouts of the kernel are understood, one hierarchy (v2) and several (v1, hybrid), also where systemd does not
manage them. https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PARENT = "tinyfat-machines"
KILL_SECONDS_MAX = 10.0
KILL_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where they are mounted. `tracking`: those a systemd inside builds its own groups in."""

    tracking: tuple[Path, ...]
    memory: Path | None  # v1, or v2 with this controller
    memory_v2: bool


def hierarchies(mounts: str) -> Hierarchies:
    """`mounts`: the text of /proc/self/mounts."""
    rows = [line.split() for line in mounts.splitlines()]
    v2 = [Path(row[1]) for row in rows if row[2] == "cgroup2"]
    v1 = {option: Path(row[1]) for row in rows if row[2] == "cgroup" for option in row[3].split(",")}
    tracking = (*v2[:1], *([v1["name=systemd"]] if "name=systemd" in v1 else []))
    if "memory" in v1:
        return Hierarchies(tracking, v1["memory"], False)
    return Hierarchies(tracking, v2[0] if v2 else None, True)


class Cgroup:
    """`launch` holds the launcher, `machine` what it launched: so v2 lets the machine's systemd have controllers."""

    def __init__(self, key: str, found: Hierarchies) -> None:
        self._found = found
        self._tracking = [root / PARENT / key for root in found.tracking]
        self._memory = found.memory / PARENT / key if found.memory else None

    @property
    def machine_procs(self) -> list[Path]:
        """A process that writes its id into each of these is the machine from then on."""
        return [folder / "machine" / "cgroup.procs" for folder in self._tracking]

    def make(self, memory_bytes: int) -> list[Path]:
        """The files that the launcher writes its own id into."""
        entries = []
        for folder in self._tracking:
            for child in ("launch", "machine"):
                (folder / child).mkdir(parents=True, exist_ok=True)
            entries.append(folder / "launch" / "cgroup.procs")
        if self._memory is not None:
            self._memory.mkdir(parents=True, exist_ok=True)
            entries += self._limit(self._memory, memory_bytes)
        return entries

    def _limit(self, folder: Path, memory_bytes: int) -> list[Path]:
        if not self._found.memory_v2:
            (folder / "memory.limit_in_bytes").write_text(str(memory_bytes))
            return [folder / "cgroup.procs"]
        with suppress(OSError):  # a host that gives no controllers away: no limit then
            (folder.parent.parent / "cgroup.subtree_control").write_text("+memory")
            (folder.parent / "cgroup.subtree_control").write_text("+memory")
            (folder / "memory.max").write_text(str(memory_bytes))
        return []

    def processes(self) -> set[int]:
        """Everything that runs in it, below too."""
        found: set[int] = set()
        for top in (*self._tracking, *([self._memory] if self._memory else [])):
            for folder, _, _ in os.walk(top):
                with suppress(OSError):
                    found.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
        return found

    def supervisor(self) -> int | None:
        """The process of systemd-nspawn itself, which puts itself there."""
        for folder in self._tracking:
            with suppress(OSError, ValueError, IndexError):
                return int((folder / "machine" / "supervisor" / "cgroup.procs").read_text().split()[0])
        return None

    def kill(self) -> bool:
        """True once nothing of it runs."""
        deadline = time.monotonic() + KILL_SECONDS_MAX
        while (alive := self.processes()) and time.monotonic() < deadline:
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(KILL_POLL_SECONDS)
        return not alive

    def remove(self) -> None:
        """The empty groups; one that is not empty stays."""
        for top in (*self._tracking, *([self._memory] if self._memory else [])):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)


def remove_parents(found: Hierarchies) -> None:
    """The groups above the machines', where no machine of any installation is left."""
    for root in {*found.tracking, *([found.memory] if found.memory else [])}:
        with suppress(OSError):
            (root / PARENT).rmdir()
