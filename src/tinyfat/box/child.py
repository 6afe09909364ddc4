"""The runtime's process: its own session and group, dead with the box, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyfat.box.private_file import write_private
from tinyfat.box.process_table import ProcessSeen, boot, dead_children, everyone, look, tree
from tinyfat.box.runtime import Command

GONE_SECONDS_MAX = 30.0  # after SIGKILL; the kernel may still be writing its memory out
GONE_POLL_SECONDS = 0.02
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LINE_BYTES_MAX = 64 * 1024  # of one line of output; the rest of it is dropped

# Run before the runtime on Linux, in its own process: the kernel is to kill it when the box dies (prctl(2),
# PR_SET_PDEATHSIG), and then it becomes the runtime. Python ignores SIGPIPE and SIGXFSZ, a background job SIGINT,
# and Python sets LC_CTYPE (PEP 538): that is undone, so that the runtime gets exactly what it was given.
_LEASH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]): os._exit(1)
with open("/proc/self/environ", "rb") as file:
    environment = dict(item.split(b"=", 1) for item in file.read().split(b"\\0") if b"=" in item)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    if number < 32: signal.signal(number, signal.SIG_DFL)
try:
    os.execvpe(sys.argv[2], sys.argv[2:], environment)
except OSError as error:
    print(f"cannot run {sys.argv[2]}: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(127)
"""


class Adoption:
    """Of this process: what a runtime leaves without a parent, `setsid` or not, becomes a child of its box (prctl(2),
    PR_SET_CHILD_SUBREAPER), and so is found when the runtime ends. Only a box that is a process of its own adopts: all
    its children are then its runtime's."""

    def __init__(self) -> None:
        self.is_on = False
        self._dead: set[int] = set()

    def begin(self) -> None:
        """Where the system has no such thing, nothing is adopted."""
        if sys.platform == "linux":
            self.is_on = ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def orphans(self, seen: list[ProcessSeen], runtime: int = 0) -> list[ProcessSeen]:
        """Children of this box that are not its runtime or of its own group, and all that descends from them."""
        if not self.is_on:
            return []
        own = os.getpgrp()
        roots = [one for one in seen if one.parent == os.getpid() and one.pid != runtime and one.group != own]
        return [found for root in roots for found in tree(root.pid, seen)]

    def bury(self) -> None:
        """An orphan that ended is a zombie until this box asks for its exit. Whom asyncio waits for is gone by the
        second look."""
        if not self.is_on:
            return
        dead = set(dead_children(os.getpid()))
        for pid in dead & self._dead:
            with contextlib.suppress(OSError):
                os.waitpid(pid, os.WNOHANG)
        self._dead = dead

    async def end(self) -> None:
        """Nothing that was adopted runs on. Raises NotGone."""
        while orphans := self.orphans(everyone()):
            await end_all(0, orphans)


adoption = Adoption()


class NotGone(Exception):
    """A process was sent SIGKILL and runs on."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is written down about a runtime, so that the next box finds what the last one left."""

    pid: int
    started: str
    boot: str


class Child:
    """A started runtime. `end` must be awaited, whatever happened to it."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.ReadTransport, pid_file: Path) -> None:
        self._process = process
        self._output = output
        self._pid_file = pid_file
        self._known: list[ProcessSeen] = []  # descendants, when last looked at: they may outlive their parent
        self.pid = process.pid

    @classmethod
    async def start(cls, command: Command, pid_file: Path, on_line: Callable[[str], None]) -> Child:
        """Raises OSError where it cannot be run."""
        read_fd, write_fd = os.pipe()
        # A pipe of our own: asyncio's would make `wait` wait for grandchildren that keep the other end open.
        loop = asyncio.get_running_loop()
        output, _ = await loop.connect_read_pipe(lambda: _Lines(on_line), os.fdopen(read_fd, "rb", buffering=0))
        try:
            process = await asyncio.create_subprocess_exec(
                *_leashed(command.argv),
                env=dict(command.environment),
                cwd=command.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                start_new_session=True,
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(write_fd)
        seen = look(process.pid)
        mark = Mark(process.pid, seen.started if seen else "", boot())
        try:
            write_private(pid_file, json.dumps(asdict(mark)))
        except OSError:  # a full disk: unmarked, it could be left behind
            process.kill()
            await process.wait()
            output.close()
            raise
        return cls(process, output, pid_file)

    async def exited(self) -> int:
        """The exit code; minus the signal's number where one killed it."""
        return await self._process.wait()

    def rss_bytes(self) -> int:
        """Of the whole tree; memory that two of its processes share counts twice."""
        self._known = self._tree()
        return sum(one.rss_bytes for one in self._known)

    def _tree(self) -> list[ProcessSeen]:
        seen = everyone()
        return list({one.pid: one for one in (*tree(self.pid, seen), *adoption.orphans(seen, self.pid))}.values())

    async def end(self, stop_seconds: float) -> None:
        """SIGTERM to the runtime, `stop_seconds`, SIGKILL to all of it, looked at until gone. Raises NotGone."""
        descendants = self._known + self._tree()
        if self._process.returncode is None:
            _signal(self.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(stop_seconds):
                    await self._process.wait()
            except TimeoutError:
                pass
            descendants += self._tree()
        try:
            await end_all(self.pid, descendants)
            await self._process.wait()
            while orphans := adoption.orphans(everyone(), self.pid):  # born while the others ended
                await end_all(self.pid, orphans)
                self._pid_file.unlink(missing_ok=True)
        finally:
            self._output.close()


async def end_leftover(pid_file: Path) -> bool:
    """Kill the runtime a killed box left behind. True where something of it still ran. Raises NotGone."""
    try:
        body = json.loads(pid_file.read_text("utf-8"))
        mark = Mark(int(body["pid"]), str(body["started"]), str(body["boot"]))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        pid_file.unlink(missing_ok=True)  # not written by a box: nobody's mark
        return False
    left = _left_of(mark)
    await end_all(mark.pid, left)
    pid_file.unlink(missing_ok=True)
    return bool(left)


def _left_of(mark: Mark) -> list[ProcessSeen]:
    """What still runs of it. A group's id is not given to a new process while the group has members (setsid(2)),
    so members without their leader are the old ones; a leader with another start time is somebody else."""
    if mark.boot != boot():
        return []
    seen = everyone()
    leader = next((one for one in seen if one.pid == mark.pid), None)
    if leader and leader.started != mark.started:
        return []
    return tree(mark.pid, seen)


async def end_all(group: int, descendants: list[ProcessSeen]) -> None:
    """SIGKILL until nothing of the group and of these processes is seen any more. Raises NotGone."""
    wanted = {(one.pid, one.started) for one in descendants}
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while True:
        running = [one for one in everyone() if (one.pid, one.started) in wanted or _in_group(one, group, wanted)]
        if not running:
            return
        if time.monotonic() > deadline:
            raise NotGone(f"process {running[0].pid} runs on {GONE_SECONDS_MAX:.0f} s after SIGKILL")
        for one in running:
            _signal(one.pid, signal.SIGKILL)
        await asyncio.sleep(GONE_POLL_SECONDS)


def _in_group(one: ProcessSeen, group: int, wanted: set[tuple[int, str]]) -> bool:
    """Born into the group after it was looked at. With nothing of it left, the group's id may be another's."""
    return one.group == group and one.pid != group and bool(wanted)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or another's by now: looking again tells
        os.kill(pid, number)


def _leashed(argv: tuple[str, ...]) -> tuple[str, ...]:
    if sys.platform != "linux":
        return argv
    return (sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *argv)


class _Lines(asyncio.Protocol):
    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._say(line)
        self._rest = rest[:LINE_BYTES_MAX]

    def connection_lost(self, error: Exception | None) -> None:
        if self._rest:
            self._say(self._rest)

    def _say(self, line: bytes) -> None:
        text = line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
        if text:
            self._on_line(text)
