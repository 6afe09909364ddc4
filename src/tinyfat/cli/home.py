"""TINYFAT_HOME: what identifies this control plane, and what tells the command line where it runs.

lock            held by the one `tinyfat up` of this home
secret.key      from which machine tokens, bounce seals and the operator's token are derived
host.id         this host's name among the control plane's processes; the same after every start
up.json         where the running control plane listens
postgres/ postgres.log machines/
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyfat.domain.secrets import derived


class HomeRefused(Exception):
    """This home cannot be used."""


@dataclass(frozen=True, slots=True)
class Running:
    """What `tinyfat up` writes down once it answers."""

    pid: int
    http_url: str
    smtp: str
    domain: str


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def make(self) -> None:
        """Raises HomeRefused."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise HomeRefused(f"TINYFAT_HOME: {self.path} cannot be made or written: {error.strerror}.") from error

    def take(self) -> None:
        """For as long as this process lives. Raises HomeRefused where another `tinyfat up` has it."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            running = self.running()
            where = f" (process {running.pid}, {running.http_url})" if running else ""
            raise HomeRefused(
                f"TinyFat already runs on {self.path}{where}. For a second one, set another TINYFAT_HOME, "
                "TINYFAT_SMTP_LISTEN, TINYFAT_HTTP_LISTEN and TINYFAT_RELAY_LISTEN."
            ) from None
        self._lock = handle

    def secret(self) -> bytes:
        return bytes.fromhex(self._kept("secret.key", lambda: secrets.token_hex(32)))

    def host_id(self) -> str:
        return self._kept("host.id", lambda: str(uuid.uuid4()))

    def operator_token(self) -> str:
        return derived(self.secret(), "operator").hex()

    def say_running(self, running: Running) -> None:
        _write_private(self.path / "up.json", json.dumps(asdict(running)))

    def say_stopped(self) -> None:
        (self.path / "up.json").unlink(missing_ok=True)

    def running(self) -> Running | None:
        """The last that was written; the process may be dead by now."""
        try:
            return Running(**json.loads((self.path / "up.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        file = self.path / name
        if not file.exists():
            _write_private(file, make())
        return file.read_text().strip()


def _write_private(file: Path, text: str) -> None:
    draft = file.with_name(file.name + ".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(handle)
    draft.replace(file)
