"""What runs on this host, as its kernel says: /proc on Linux, `ps` elsewhere. Zombies do not count as running."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PS = ("ps", "-A", "-o", "pid=,ppid=,pgid=,rss=,stat=,lstart=")
_PS_SECONDS_MAX = 10.0
_HAS_PROC = (_PROC / "self/stat").exists()
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessSeen:
    pid: int
    parent: int
    group: int
    rss_bytes: int
    started: str  # in the kernel's words; a pid alone is used again, with it it is one process


def everyone() -> list[ProcessSeen]:
    """All running processes. A few milliseconds with /proc; tens of them with ps."""
    return from_proc() if _HAS_PROC else from_ps()


def look(pid: int) -> ProcessSeen | None:
    """None: no such process, or a zombie."""
    if _HAS_PROC:
        return _stat(pid)
    return next((seen for seen in from_ps() if seen.pid == pid), None)


def boot() -> str:
    """Differs after every boot of the host, where the kernel says so: pids and start times begin anew then."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def tree(root: int, seen: Iterable[ProcessSeen]) -> list[ProcessSeen]:
    """`root` and all that descends from it, plus its process group's members whose parent has died."""
    everyone_seen = list(seen)
    found = {one.pid for one in everyone_seen if one.pid == root or one.group == root}
    grew = True
    while grew:  # each round adds a process or is the last
        more = {one.pid for one in everyone_seen if one.parent in found} - found
        found |= more
        grew = bool(more)
    return [one for one in everyone_seen if one.pid in found]


def dead_children(parent: int) -> list[int]:
    """Zombies of this parent; none where there is no /proc."""
    found = []
    for name in os.listdir(_PROC) if _HAS_PROC else ():
        with contextlib.suppress(OSError):
            if name.isdecimal():
                fields = (_PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] == b"Z" and int(fields[1]) == parent:
                    found.append(int(name))
    return found


def from_proc() -> list[ProcessSeen]:
    pids = (int(name) for name in os.listdir(_PROC) if name.isdecimal())
    return [seen for seen in map(_stat, pids) if seen]


def from_ps() -> list[ProcessSeen]:
    done = subprocess.run(
        _PS, capture_output=True, text=True, check=True, timeout=_PS_SECONDS_MAX, env={**os.environ, "LC_ALL": "C"}
    )
    return [seen for seen in map(_ps_line, done.stdout.splitlines()) if seen]


def _stat(pid: int) -> ProcessSeen | None:
    """proc_pid_stat(5). The name is in parentheses and may hold anything, so fields count from the last one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return ProcessSeen(pid, int(fields[1]), int(fields[2]), int(fields[21]) * _PAGE_BYTES, fields[19].decode("ascii"))


def _ps_line(line: str) -> ProcessSeen | None:
    pid, parent, group, rss_kib, state, *started = line.split()
    if state.startswith("Z"):
        return None
    return ProcessSeen(int(pid), int(parent), int(group), int(rss_kib) * 1024, " ".join(started))
