"""The box's own folder: who it is, what it runs, and that it is the only box in it.

box.json        who I am; written by the machine's driver
spec.json       what to run, as the control plane last said: a box starts its runtime without it after a reboot
box.lock        held while a box runs here
box.pid         which process holds it, for people
box.log(.1)     the runtime's output and the box's own
runtime.pid     which process group the runtime is
model.port      where the runtime finds its model, the same after every start
journal.sqlite  the turns
state/ workspace/  the runtime's and the agent's own
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tinyfat.box.private_file import write_private
from tinyfat.box.runtime import Places
from tinyfat.domain.link import FrameRefused, RuntimeSpec, Welcome
from tinyfat.domain.link_json import decode, encode


class FolderRefused(Exception):
    """This folder is not a box's folder."""


class FolderTaken(Exception):
    """Another box runs in this folder."""


@dataclass(frozen=True, slots=True)
class Identity:
    """box.json: the part of a machine's identity that its box needs. The token opens this machine's own agent and
    nothing else."""

    machine_id: str
    agent_name: str  # "": it waits in the warm pool
    runtime: str
    link_url: str
    link_token: str
    shared_folder: Path
    link_ca: str = ""  # PEM: who alone may vouch for the control plane; "": whom the system trusts
    serial: int = 0  # of the identity that root wrote this from
    identity_wanted: Path | None = None  # made to ask root for a newer one; None: nobody there to ask

    def __repr__(self) -> str:
        return f"Identity(machine_id={self.machine_id!r}, agent_name={self.agent_name!r}, link_token=***)"


class BoxFolder:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.log = self.path / "box.log"
        self.journal = self.path / "journal.sqlite"
        self.runtime_pid = self.path / "runtime.pid"
        self.model_port = self.path / "model.port"
        self._spec = self.path / "spec.json"
        self._lock_fd: int | None = None
        self._inode: tuple[int, int] | None = None

    def identity(self) -> Identity:
        """Raises FolderRefused."""
        file = self.path / "box.json"
        try:
            body = json.loads(file.read_text("utf-8"))
            return Identity(
                _string(body["machine_id"]),
                _string(body["agent_name"], empty=True),
                _string(body["runtime"]),
                _string(body["link_url"]),
                _string(body["link_token"]),
                Path(_string(body["shared_folder"])),
                _string(body.get("link_ca", ""), empty=True),
                int(body.get("identity_serial", 0)),
                Path(_string(body["identity_wanted"])) if body.get("identity_wanted") else None,
            )
        except OSError as error:
            raise FolderRefused(f"{file} cannot be read ({error.strerror}): the machine's driver writes it.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FolderRefused(
                f"{file} is not what a box needs ({type(error).__name__}: {error}): start the machine again, "
                "and its driver writes it anew."
            ) from error

    def want_identity(self, serial: int) -> bool:
        """Ask root for the machine's identity where ours is older than this one. box.json is read anew: root may have
        replaced it since this box started. False where there is nothing to ask for. Raises FolderRefused, OSError."""
        now = self.identity()
        if now.identity_wanted is None or now.serial >= serial:
            return False
        now.identity_wanted.touch(mode=0o600)
        return True

    def lock(self) -> None:
        """Held until this process ends. Raises FolderTaken."""
        self._lock_fd = os.open(self.path / "box.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            self._lock_fd = None
            raise FolderTaken(f"Another box runs in {self.path}; this one ends.") from error
        write_private(self.path / "box.pid", f"{os.getpid()}\n")  # whole or not there: a driver may be reading it
        self._inode = self._look()

    def unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def still_there(self) -> bool:
        """False once the folder was removed, another one of its name made in its place included."""
        return self._look() == self._inode

    def places(self, shared: Path) -> Places:
        places = Places(self.path / "state", self.path / "workspace", shared)
        for own in (places.state, places.workspace):
            own.mkdir(mode=0o700, exist_ok=True)
        shared.mkdir(parents=True, exist_ok=True)
        return places

    def load_spec(self) -> RuntimeSpec | None:
        """None where no control plane has spoken yet, or what it said cannot be read: it will say it again."""
        try:
            frame = decode(self._spec.read_bytes())
        except (OSError, FrameRefused):
            return None
        return frame.spec if isinstance(frame, Welcome) else None

    def save_spec(self, spec: RuntimeSpec) -> None:
        write_private(self._spec, encode(Welcome(spec)))

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self.path.stat()
        except OSError:
            return None
        return seen.st_dev, seen.st_ino


def _string(value: object, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise ValueError("a value is missing or is not text")
    return value
