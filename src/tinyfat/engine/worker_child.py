"""What a worker process runs (`engine/workers` starts it): one job after another from its standard input, a socket.

It imports little, so that it is there within 30 ms and holds 10 MB; what a job's function needs, its module imports.
"""

from __future__ import annotations

import os
import pickle
import resource
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

NICENESS = 5  # hostile input must not compete with the process that serves everybody
HEAD = struct.Struct("!BQ")  # how it ended, and how many bytes of pickle follow
RETURNED, RAISED, OUT_OF_MEMORY, TOO_LARGE, LAST = 0, 1, 2, 3, 0x80  # LAST is added where this process ends now
ASK = struct.Struct("!QQdQ")  # bytes of pickle, bytes of address space, seconds, bytes that the answer may have
KEEP_BYTES_MAX = (
    96 * 1024 * 1024
)  # a process that has ever held more ends after its job: memory goes back to the system


def main() -> None:
    """Until the parent closes the socket or dies. The working folder is no place to import from: `-P`."""
    read, write = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(0), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)  # what a job prints may be a stranger's words
    with suppress(OSError):
        os.nice(NICENESS)
    while head := read.read(ASK.size):
        if not _one(head, read, write):
            return


def _one(head: bytes, read: BinaryIO, write: BinaryIO) -> bool:
    """Whether this process goes on."""
    length, memory, seconds, answer_max = ASK.unpack(head)
    request = read.read(length)
    _bound(memory, seconds)
    ended, answer = _done(request)
    if len(answer) > answer_max:
        ended, answer = TOO_LARGE, b""
    last = ended == OUT_OF_MEMORY or _held_most() > KEEP_BYTES_MAX
    write.write(HEAD.pack(ended | (LAST if last else 0), len(answer)))
    write.write(answer)
    write.flush()
    return not last


def _done(request: bytes) -> tuple[int, bytes]:
    try:
        function, arguments = pickle.loads(request)  # noqa: S301 - from our own parent
        del request
        return RETURNED, pickle.dumps(function(*arguments), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        return OUT_OF_MEMORY, b""
    except Exception as error:
        return RAISED, _pickled(error)


def _pickled(error: Exception) -> bytes:
    """With what cannot be given across (its constructor wants more than its words) named by its type."""
    try:
        pickled = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
        pickle.loads(pickled)  # noqa: S301 - our own, just made
        return pickled
    except Exception:
        return pickle.dumps(f"{type(error).__name__}: {error}"[:500], pickle.HIGHEST_PROTOCOL)


def _bound(memory: int, seconds: float) -> None:
    """By the system, beside the parent's deadline: a parent that was killed ends nothing. macOS knows no RLIMIT_AS."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime + seconds) + 2
    for kind, limit in ((resource.RLIMIT_CPU, cpu), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        with suppress(OSError, ValueError):
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _held_most() -> int:
    """Bytes. Linux hands ru_maxrss on through fork and exec: there it would be the parent's."""
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
