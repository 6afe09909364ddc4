"""One program into the sandbox: every step in the order that works."""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyfat.sandbox import kernel, landlock, rooms, seccomp
from tinyfat.sandbox.grants import DEVICES, Grants, reached
from tinyfat.sandbox.landlock import Ports
from tinyfat.sandbox.means import EXIT_NO_SANDBOX, Means

PROCESSES_MAX = 4096  # of one sandbox, where it has a user namespace: a fork bomb ends there
_FIRST_FD_NOT_STANDARD = 3
_ROOM = tuple(map(Path, ("/tmp", "/dev/shm", "/dev/pts", "/dev/ptmx")))  # noqa: S108 - our own, in the room


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run. `folder` is where it starts; of open files it keeps the standard three and `keep`."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    keep: tuple[int, ...] = field(default=())


def start(program: Program, grants: Grants, ports: Ports, means: Means, root: Path) -> int:
    """The program's pid. It dies with this process, and with it, where there are namespaces, all that it began.

    Where a step fails, nothing runs: the child says why on standard error and ends with EXIT_NO_SANDBOX. For a process
    of one thread. `root`: an empty folder, for a mount that nobody else sees. Raises OSError.
    """
    user, group = os.geteuid(), os.getegid()
    alive, _held = os.pipe()  # its other end closes when this process ends, however it ends
    flags = rooms.FLAGS if means.namespaces else 0
    pid = kernel.clone(flags) if flags else os.fork()
    if pid:
        os.close(alive)
        return pid
    try:
        _close_all_but({0, 1, 2, alive, *program.keep})  # first: locks of our parent's are among them
        kernel.die_with_parent()
        os.setsid()
        if means.namespaces:
            rooms.remain_oneself(user, group)
        _enter(program, grants, ports, means, root, alive)
    except BaseException as error:  # no traceback of a copy of our parent: it must not go on as if it were it
        os.write(2, f"the sandbox cannot be entered: {error}\n".encode())
    finally:
        os._exit(EXIT_NO_SANDBOX)


def _enter(program: Program, grants: Grants, ports: Ports, means: Means, root: Path, alive: int) -> None:
    if means.namespaces:
        rooms.move_in(root, grants)
        resource.setrlimit(resource.RLIMIT_NPROC, _at_most(resource.RLIMIT_NPROC, PROCESSES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash's memory goes to a program of the host's choice
    kernel.no_new_privileges()
    kernel.drop_capabilities()
    if means.landlock:
        landlock.restrict(means.landlock, _rights(grants, means), ports)
    if means.seccomp:
        seccomp.restrict(unix_sockets=means.unix_sockets, room=means.namespaces)
    os.chdir(program.folder)
    kernel.die_with_parent()  # again: giving up capabilities may have undone it (prctl(2), PR_SET_PDEATHSIG)
    if select.select([alive], [], [], 0)[0]:
        return  # the parent ended before it could be noticed
    os.execve(program.argv[0], list(program.argv), dict(program.environment))  # noqa: S606


def _rights(grants: Grants, means: Means) -> list[tuple[Path, int]]:
    """For Landlock. In a room, what was not granted is not there: the rest may be read."""
    everything = [(path, landlock.EVERYTHING) for path in (grants.own, *grants.lent, *map(Path, DEVICES))]
    if means.namespaces:
        return [*everything, (Path("/"), landlock.READ), *((path, landlock.EVERYTHING) for path in _ROOM)]
    read = [(path, landlock.READ) for path in (*reached(grants.read), Path("/proc"))]
    return [*everything, *read, *((path, landlock.READ_DIR) for path in grants.listed)]


def _at_most(kind: int, wanted: int) -> tuple[int, int]:
    hard = resource.getrlimit(kind)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return limit, limit


def _close_all_but(keep: set[int]) -> None:
    for fd in range(_FIRST_FD_NOT_STANDARD, max(keep) + 1):
        if fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)
    os.closerange(max(keep) + 1, os.sysconf("SC_OPEN_MAX"))


def wait(pid: int) -> int:
    """Its exit code, as a shell says it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code
