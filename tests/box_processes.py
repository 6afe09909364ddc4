"""Which processes of this host are a machine's box and runtime: in its sandbox they have numbers of their own."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def box_pid(home: Path, machine_id: str) -> int | None:
    """None while none runs."""
    with suppress(OSError, ValueError, KeyError, psutil.Error):
        if not sys.platform.startswith("linux"):
            return int((home / "machines" / machine_id / "box.pid").read_text())
        parent = psutil.Process(int(json.loads((home / "boxes" / f"{machine_id}.pid").read_text())["pid"]))
        return next((child.pid for child in parent.children() if "tinyfat.box" in child.cmdline()), None)
    return None


def box_process(home: Path, machine_id: str) -> psutil.Process:
    """The box that runs now."""
    pid = box_pid(home, machine_id)
    assert pid is not None, f"no box of {machine_id} runs"
    return psutil.Process(pid)


def runtime_pid(home: Path, machine_id: str) -> int | None:
    """As its box wrote it down, in this host's words; None while none runs."""
    box = box_pid(home, machine_id)
    with suppress(OSError, ValueError, KeyError, psutil.Error):
        inside = int(json.loads((home / "machines" / machine_id / "runtime.pid").read_text())["pid"])
        if not sys.platform.startswith("linux"):
            return inside
        children = psutil.Process(box).children() if box else []
        return next((child.pid for child in children if _inside(child.pid) == inside), None)
    return None


def _inside(pid: int) -> int:
    """Its number in the innermost namespace (proc_pid_status(5), NSpid)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])
