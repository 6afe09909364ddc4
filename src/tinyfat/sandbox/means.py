"""What of a sandbox this kernel gives, and what therefore does not hold."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache

from tinyfat.sandbox import landlock, seccomp

TRIAL_SECONDS_MAX = 30.0
EXIT_NO_SANDBOX = 71  # of the trial: EX_OSERR, sysexits.h
WORDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Means:
    """`landlock`: the ABI, 0: none. `namespaces`: user, mount, pid and IPC. `seccomp`: we know this
    processor's calls."""

    landlock: int = 0
    namespaces: bool = False
    seccomp: bool = False

    @property
    def any(self) -> bool:
        """Whether there is a wall at all: without one of the two, Postgres' socket would be a way around it."""
        return self.namespaces or (self.landlock > 0 and self.seccomp)

    @property
    def all(self) -> bool:
        """Whether agents of owners who do not trust each other may stand side by side."""
        return not self.gaps()

    @property
    def unix_sockets(self) -> bool:
        """Whether a program may have them: nobody else's is in sight by path, nor by an abstract name."""
        return self.namespaces and self.landlock >= landlock.ABI_SCOPES

    def gaps(self) -> tuple[str, ...]:
        """What a program can do that it must not, in words; () where there is nothing."""
        if not self.any:
            return ("do all that you can: read every key of TinyFat, every other agent and your own files",)
        found = []
        if self.landlock < landlock.ABI_TCP or not self.seccomp:
            found.append("reach TinyFat's own ports, so write to other agents as their owners")
        if not self.namespaces:
            if self.landlock < landlock.ABI_TRUNCATE:
                found.append("empty your files")
            if self.landlock < landlock.ABI_SCOPES:
                found.append("end your programs")
            found.append(
                "change your files' modes and times and learn their names and sizes; slow your programs down, and see "
                "which run, with their arguments; take the locks of an OpenClaw of your own"
            )
        return tuple(found)

    @property
    def words(self) -> str:
        """For the operator, as the rest of a sentence about such a program's agent."""
        if not self.any:
            return "without a sandbox: each of its programs can " + self.gaps()[0]
        if gaps := self.gaps():
            return f"in a sandbox with gaps. What it should not, and can: {'; '.join(gaps)}"
        return "in a sandbox: it has a folder of its own, the network, and what on this host's ports asks no password"


NONE = Means()


class MeansUnknown(OSError):
    """The trial said nothing about the kernel: this host is out of memory, processes or time."""


@cache
def here() -> Means:
    """By trial, in a process of its own. Blocks for a fraction of a second, until it is known. Raises MeansUnknown:
    that is not to be taken for 'none'."""
    if sys.platform != "linux":
        return NONE
    wanted = Means(landlock.abi(), namespaces=True, seccomp=seccomp.known())
    if _works(wanted):
        return wanted
    without = Means(wanted.landlock, namespaces=False, seccomp=wanted.seccomp)
    return without if without.any and _works(without) else NONE


def _works(means: Means) -> bool:
    argv = [sys.executable, "-P", "-m", "tinyfat.sandbox.trial", json.dumps(asdict(means))]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TRIAL_SECONDS_MAX, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeansUnknown(f"the sandbox could not be tried: {error}") from error
    if done.returncode not in (0, EXIT_NO_SANDBOX):
        last = done.stderr.decode("utf-8", "replace").strip()[-WORDS_MAX:]
        raise MeansUnknown(f"the sandbox could not be tried: exit code {done.returncode}. {last}")
    return done.returncode == 0
