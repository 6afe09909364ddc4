"""Machines that are child processes of this host: a folder, a box, the box's runtime. For laptops, tests and demos.

Not isolated at all: an agent's programs are the operator's user, and can read the others' folders and every key.
Everything that matters is on disk, so a control plane that was killed finds its machines again by what the boxes wrote
into their folders.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from tinyfat.box.build import BUILD
from tinyfat.box.child import Mark
from tinyfat.box.process_table import ProcessSeen, boot, everyone, look, tree
from tinyfat.domain.machines import MachineOrder, MachineSeen, MachineState
from tinyfat.ports.machines import MachineRefused

FORCE_SECONDS = 30.0  # asked this long ago and still there: it is killed
KILLED_SECONDS_MAX = 10.0  # the kernel takes a moment to end what was killed; longer in an uninterruptible wait
LOOK_SECONDS = 0.05
ENVIRONMENT_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "XDG_CACHE_HOME")
# An npm that was told where its registry and certificates are needs to know it here too.
ENVIRONMENT_KEPT_PREFIXES = (
    "npm_config_",
    "NPM_CONFIG_",
    "NODE_EXTRA_CA_CERTS",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


class ProcessMachines:
    month_price = 0  # this host is paid for anyway

    def __init__(self, folder: Path, shared: Path, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._shared = shared
        self._monotonic = monotonic
        self._asked_to_stop: dict[str, float] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, order: MachineOrder) -> None:
        """Raises MachineRefused where the folder cannot be written."""
        folder = self._folder / order.id
        wanted = json.dumps(
            {
                "machine_id": order.id,
                "agent_name": order.agent_name,
                "runtime": order.runtime,
                "link_url": order.link_url,
                "link_token": order.link_token,
                "shared_folder": str(self._shared),
                "build": BUILD,  # a box of other code is started anew
            }
        )
        box_file = folder / "box.json"
        running = (await self.look(order.id)).state is MachineState.RUNNING
        if running and box_file.is_file() and box_file.read_text() == wanted:
            return
        if running:
            await self._end_now(order.id)  # it knows another address or token, or is of other code: it begins anew
        self._asked_to_stop.pop(order.id, None)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_private(box_file, wanted)
            self._spawn(order.id, folder)
        except OSError as error:
            raise MachineRefused(f"The box of {order.agent_name} cannot be started in {folder}: {error}") from error

    async def look(self, machine_id: str) -> MachineSeen:
        self._reap(machine_id)
        folder = self._folder / machine_id
        if running := self._processes(machine_id):
            names = ", ".join(f"{what} (process {process.pid})" for what, process in running.items())
            return MachineSeen(MachineState.RUNNING if "box" in running else MachineState.UNKNOWN, f"{names} runs")
        return MachineSeen(MachineState.STOPPED if folder.exists() else MachineState.GONE)

    async def stop(self, machine_id: str) -> None:
        """SIGTERM; when that was FORCE_SECONDS ago, SIGKILL, to the runtime too and to all that it began."""
        first = self._asked_to_stop.get(machine_id)
        if first is None:
            self._asked_to_stop[machine_id] = self._monotonic()
            for process in self._processes(machine_id).values():
                with suppress(psutil.Error):
                    process.terminate()
        elif self._monotonic() - first > FORCE_SECONDS:
            await self._kill_all(machine_id)

    async def delete(self, machine_id: str) -> None:
        """SIGKILL, and when nothing runs any more the folder goes; what does not die keeps it."""
        deadline = self._monotonic() + KILLED_SECONDS_MAX
        while (left := await self._all_of(machine_id)) and self._monotonic() < deadline:
            await self._kill_all(machine_id)
            await asyncio.sleep(LOOK_SECONDS)
            self._reap(machine_id)
        if not left:
            await asyncio.to_thread(shutil.rmtree, self._folder / machine_id, True)

    def _spawn(self, machine_id: str, folder: Path) -> None:
        with (folder / "box.err").open("ab") as errors:
            self._children[machine_id] = subprocess.Popen(
                [sys.executable, "-m", "tinyfat.box", "--folder", str(folder)],
                env=_environment(),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # it outlives a control plane that is killed
            )

    def _reap(self, machine_id: str) -> None:
        child = self._children.get(machine_id)
        if child is not None and child.poll() is not None:
            del self._children[machine_id]

    def _processes(self, machine_id: str) -> dict[str, psutil.Process]:
        """What of this machine runs: its box, its runtime, and what a dead runtime left running."""
        folder = self._folder / machine_id
        found: dict[str, psutil.Process] = {}
        child = self._children.get(machine_id)
        if child is not None and child.poll() is None:
            with suppress(psutil.Error):
                found["box"] = psutil.Process(child.pid)  # it may not have taken its lock yet
        elif box := _box_process(folder):
            found["box"] = box
        if runtime := _runtime_process(folder):
            found["runtime"] = runtime
        if not found:
            found.update(_left_by_runtime(folder))
        return found

    async def _kill_all(self, machine_id: str) -> None:
        left = await self._all_of(machine_id)
        self._kill(machine_id)
        for process in left:
            with suppress(psutil.Error):
                process.kill()

    async def _all_of(self, machine_id: str) -> list[psutil.Process]:
        """Its box and runtime, all that descends from them, and all that works in its folder, whoever its parent is."""
        known = list(self._processes(machine_id).values())
        folder = (self._folder / machine_id).resolve()
        return known + await asyncio.to_thread(_descended_or_in, folder, known)

    def _kill(self, machine_id: str) -> None:
        for process in self._processes(machine_id).values():
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getpgid(process.pid) == process.pid:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()

    async def _end_now(self, machine_id: str) -> None:
        for process in self._processes(machine_id).values():
            with suppress(psutil.Error):
                process.terminate()
        deadline = self._monotonic() + FORCE_SECONDS
        while self._processes(machine_id):
            if self._monotonic() > deadline:
                self._kill(machine_id)
            await asyncio.sleep(LOOK_SECONDS)
            self._reap(machine_id)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ENVIRONMENT_KEPT or name.startswith(ENVIRONMENT_KEPT_PREFIXES)
    }
    return {**kept, "HOME": os.environ.get("HOME", "/"), "PYTHONUNBUFFERED": "1"}


def _write_private(file: Path, text: str) -> None:
    temporary = file.with_suffix(".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    temporary.replace(file)


def _box_process(folder: Path) -> psutil.Process | None:
    """The box of this folder, whoever started it. A pid may be another's by now: the command line names the folder."""
    try:
        process = psutil.Process(int((folder / "box.pid").read_text().strip()))
        return process if str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.Error):
        return None


def _runtime_process(folder: Path) -> psutil.Process | None:
    """The runtime its box wrote down."""
    mark = _mark(folder)
    seen = look(mark.pid) if mark else None
    return _process(seen) if mark and seen and seen.started == mark.started else None


def _left_by_runtime(folder: Path) -> dict[str, psutil.Process]:
    """Commands a runtime had started and that outlived it, when box and runtime were killed."""
    mark = _mark(folder)
    if mark is None:
        return {}
    seen = everyone()
    if any(one.pid == mark.pid for one in seen):
        return {}  # the pid is another's by now, and so would its children be
    left = {f"a command of the runtime, {one.pid}": _process(one) for one in tree(mark.pid, seen)}
    return {what: process for what, process in left.items() if process is not None}


def _descended_or_in(folder: Path, roots: list[psutil.Process]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for root in roots:
        with suppress(psutil.Error):
            found += root.children(recursive=True)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            inside = process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder)
            if inside:
                found.append(process)
    return [process for process in found if process.is_running() and not _is_zombie(process)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _mark(folder: Path) -> Mark | None:
    """What the box wrote down about its runtime; None where it has none, or this host was booted since."""
    try:
        body = json.loads((folder / "runtime.pid").read_text())
        mark = Mark(int(body["pid"]), str(body["started"]), str(body["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mark if mark.boot == boot() else None


def _process(seen: ProcessSeen) -> psutil.Process | None:
    try:
        return psutil.Process(seen.pid)
    except psutil.Error:
        return None
