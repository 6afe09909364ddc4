"""Machines that are child processes of this host: a folder, a box, the box's runtime. For laptops, tests and demos.

On Linux each box is in a sandbox (tinyfat/sandbox), as good as the kernel gives one; `process_box` is its parent. Where
there is none, an agent's programs are the operator's user, and can read the others' folders and every key.

What we know of a machine is in a folder beside, out of its box's reach: `boxes/ID.json` what it was made from, `.pid`
and `.lock` which process its box's parent is, `.err` what the box says to nobody. So a control plane that was killed
finds its machines again, and no box can name another's process as its own, or have us write through its links.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import psutil

from tinyfat.box.build import BUILD
from tinyfat.box.child import Mark
from tinyfat.box.process_table import ProcessSeen, boot, everyone, look, tree
from tinyfat.domain.machines import MachineOrder, MachineSeen, MachineState
from tinyfat.drivers.machines import process_box
from tinyfat.drivers.machines.folder_removal import remove
from tinyfat.drivers.machines.process_ports import own_ports
from tinyfat.ports.machines import MachineRefused
from tinyfat.sandbox import means
from tinyfat.sandbox.landlock import Ports
from tinyfat.sandbox.means import NONE, Means, MeansUnknown

FORCE_SECONDS = 30.0  # asked this long ago and still there: it is killed
KILLED_SECONDS_MAX = 10.0  # the kernel takes a moment to end what was killed; longer in an uninterruptible wait
LOOK_SECONDS = 0.05
HAS_PARENT = sys.platform.startswith("linux")
MARK_BYTES_MAX = 4096
ERRORS_BYTES_MAX = 1024**2
RECORD_KINDS = (".json", ".pid", ".lock", ".err", ".root")
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

    def __init__(
        self, folder: Path, shared: Path, monotonic: Callable[[], float], means: Callable[[], Means] = means.here
    ) -> None:
        """`means`: of the sandbox; may block, and is asked in a thread."""
        self._folder = folder
        self._records = folder.parent / "boxes"
        self._shared = shared
        self._monotonic = monotonic
        self._means = means
        self._numbers: dict[str, int] = {}
        self.ports = Ports()  # of ours, that no box may have
        self._asked_to_stop: dict[str, float] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    async def sandbox(self) -> Means:
        """What boxes are started in from now on. Raises MachineRefused where that cannot be told now."""
        try:
            return await asyncio.to_thread(self._means)
        except MeansUnknown as error:
            raise MachineRefused(f"No box is started: {error}.") from error

    async def holds(self) -> bool:
        """Whether agents of several owners may be side by side; False too where that cannot be told now."""
        try:
            return (await self.sandbox()).all
        except MachineRefused:
            return False

    async def sandbox_words(self) -> str:
        try:
            return (await self.sandbox()).words
        except MachineRefused as error:
            return f"not yet. {error}"

    async def start(self, order: MachineOrder) -> None:
        """Raises MachineRefused where the folder cannot be written, or there are too many."""
        folder, record = self._folder / order.id, self._record(order.id, ".json")
        box = {
            "machine_id": order.id,
            "agent_name": order.agent_name,
            "runtime": order.runtime,
            "link_url": order.link_url,
            "link_token": order.link_token,
            "shared_folder": str(self._shared.absolute()),
            "build": BUILD,  # a box of other code is started anew
        }
        wanted = json.dumps(
            {
                "box": box,
                "folder": str(folder.absolute()),
                "shared": str(self._shared.absolute()),
                "means": asdict(await self.sandbox()),
                "no_connect": sorted(self.ports.no_connect),
                "no_bind": sorted(self.ports.no_bind),
                "number": self._number(order.id),
            }
        )
        running = (await self.look(order.id)).state is MachineState.RUNNING
        if running and record.is_file() and record.read_text() == wanted:
            return
        if running:
            await self._end_now(order.id)  # it knows another address or token, or is of other code: it begins anew
        self._asked_to_stop.pop(order.id, None)
        try:
            for made in (folder, self._records):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_private(folder / "box.json", json.dumps(box))
            _write_private(record, wanted)
            self._spawn(order.id, folder, record)
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
            await self._kill_all(machine_id, self._monotonic() - first > FORCE_SECONDS + KILLED_SECONDS_MAX)

    async def delete(self, machine_id: str) -> None:
        """SIGKILL, and when nothing runs any more the folder goes; what does not die keeps it."""
        began = self._monotonic()
        while (left := await self._all_of(machine_id)) and self._monotonic() - began < KILLED_SECONDS_MAX:
            await self._kill_all(machine_id, self._monotonic() - began > KILLED_SECONDS_MAX / 2)
            await asyncio.sleep(LOOK_SECONDS)
            self._reap(machine_id)
        if not left:
            await asyncio.to_thread(remove, self._folder / machine_id)
            self._numbers.pop(machine_id, None)
            for kind in RECORD_KINDS:
                _remove(self._record(machine_id, kind))

    def _number(self, machine_id: str) -> int:
        """Its own among the machines of this host, while it lives: its ports go by it. Raises MachineRefused."""
        if machine_id not in self._numbers:
            for file in self._records.glob("*.json"):
                with suppress(OSError, ValueError, KeyError):
                    self._numbers[file.stem] = int(json.loads(file.read_text())["number"])
        if machine_id not in self._numbers:
            taken = set(self._numbers.values())
            number = next(number for number in itertools.count() if number not in taken)
            try:
                own_ports(number)
            except ValueError as error:
                raise MachineRefused(f"No machine can be made beside the others: {error}.") from None
            self._numbers[machine_id] = number
        return self._numbers[machine_id]

    def _record(self, machine_id: str, kind: str) -> Path:
        return self._records / f"{machine_id}{kind}"

    def _spawn(self, machine_id: str, folder: Path, record: Path) -> None:
        argv = [sys.executable, "-m", "tinyfat.box", "--folder", str(folder)]
        if HAS_PARENT:  # -P: nothing is imported from the folder where it starts
            argv = [sys.executable, "-P", "-m", process_box.__name__, str(record)]
        with _errors(record.with_suffix(".err")) as errors:
            self._children[machine_id] = subprocess.Popen(
                argv,
                env=_environment(),
                cwd=self._records,
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
        elif box := self._box(machine_id):
            found["box"] = box
        means = self._means_of(machine_id)
        if means.namespaces:
            return found  # they end with the box, and what the box calls a process is a number of its own
        if (runtime := _runtime_process(folder)) and _may_be_its(runtime, means):
            found["runtime"] = runtime
        if not found:
            left = _left_by_runtime(folder)
            found.update((what, one) for what, one in left.items() if _may_be_its(one, means))
        return found

    def _box(self, machine_id: str) -> psutil.Process | None:
        """The box's parent, as it wrote down itself. The box, elsewhere than on Linux or begun by an older version."""
        if HAS_PARENT and self._record(machine_id, ".json").exists():
            mark = _mark(self._record(machine_id, ".pid"))
            seen = look(mark.pid) if mark else None
            return _process(seen) if mark and seen and seen.started == mark.started else None
        return _box_process(self._folder / machine_id)

    def _means_of(self, machine_id: str) -> Means:
        """The sandbox its box was started in; none where none of ours was."""
        try:
            return process_box.Record.read(self._record(machine_id, ".json")).means
        except (OSError, ValueError, KeyError, TypeError):
            return NONE

    async def _kill_all(self, machine_id: str, parent_too: bool) -> None:
        """The box's parent ends by itself when the box has, and ends what the box left: it is killed last."""
        parent = self._processes(machine_id).get("box") if HAS_PARENT else None
        for process in await self._all_of(machine_id):
            if process != parent or parent_too:
                with suppress(psutil.Error):
                    process.kill()

    async def _all_of(self, machine_id: str) -> list[psutil.Process]:
        """Its box and runtime, all that descends from them, and all that works in its folder, whoever its parent is."""
        known = list(self._processes(machine_id).values())
        folder = (self._folder / machine_id).resolve()
        return known + await asyncio.to_thread(_descended_or_in, folder, known)

    async def _end_now(self, machine_id: str) -> None:
        for process in self._processes(machine_id).values():
            with suppress(psutil.Error):
                process.terminate()
        began = self._monotonic()
        while self._processes(machine_id):
            if (waited := self._monotonic() - began) > FORCE_SECONDS:
                await self._kill_all(machine_id, waited > FORCE_SECONDS + KILLED_SECONDS_MAX)
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
    """By a name that is not there yet: in a box's folder, one that is may be a link to anywhere."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
    temporary.replace(file)


def _errors(file: Path) -> BinaryIO:
    """Kept over a restart, until it is long."""
    old = file.is_file() and file.stat().st_size < ERRORS_BYTES_MAX
    return file.open("ab" if old else "wb")


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() else path.unlink()


def _may_be_its(process: psutil.Process, means: Means) -> bool:
    """A box in a sandbox may write down anybody's pid: only what is in a sandbox can be its runtime's."""
    if not means.any:
        return True
    try:
        status = Path(f"/proc/{process.pid}/status").read_text("utf-8", "replace")
    except OSError:
        return False
    return "\nNoNewPrivs:\t1\n" in status and "\nSeccomp:\t2\n" in status


def _box_process(folder: Path) -> psutil.Process | None:
    """The box of this folder, whoever started it. A pid may be another's by now: the command line names the folder."""
    try:
        process = psutil.Process(int((folder / "box.pid").read_text().strip()))
        return process if str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, psutil.Error):
        return None


def _runtime_process(folder: Path) -> psutil.Process | None:
    """The runtime its box wrote down."""
    mark = _mark(folder / "runtime.pid")
    seen = look(mark.pid) if mark else None
    return _process(seen) if mark and seen and seen.started == mark.started else None


def _left_by_runtime(folder: Path) -> dict[str, psutil.Process]:
    """Commands a runtime had started and that outlived it, when box and runtime were killed."""
    mark = _mark(folder / "runtime.pid")
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


def _mark(file: Path) -> Mark | None:
    """What was written down about a process; None where nothing was, or this host was booted since. The file may be a
    box's own: a short plain file is read and nothing else, since a pipe would hold us for ever."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            body = json.loads(opened.read(MARK_BYTES_MAX))
        mark = Mark(int(body["pid"]), str(body["started"]), str(body["boot"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return mark if mark.boot == boot() and mark.pid > 0 else None


def _process(seen: ProcessSeen) -> psutil.Process | None:
    try:
        return psutil.Process(seen.pid)
    except psutil.Error:
        return None
