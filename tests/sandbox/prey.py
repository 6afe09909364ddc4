"""What stands in reach of a hostile box: an operator's home, another box, a control plane, and what listens."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tinyfat
from tests.running import free_port
from tinyfat.drivers.machines.process_ports import BOXES_PORTS, PORTS_EACH
from tinyfat.sandbox.means import Means

HERE = Path(__file__).parent
SECONDS_MAX = 60.0
# Its memory has an address to read, and its environment a secret.
PLANE = """
import ctypes, sys
kept = ctypes.create_string_buffer(b"secret")
print(ctypes.addressof(kept), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Prey:
    home: Path
    own: Path
    record: Path
    targets: dict[str, Any]

    def hunted(self, means: Means, **surroundings: str) -> dict[str, Any]:
        """What the hostile program reached, from within a box's sandbox of these means."""
        self.record.write_text(
            json.dumps(
                {
                    "box": {"runtime": "echo"},
                    "folder": str(self.own),
                    "shared": self.targets["shared"],
                    "means": asdict(means),
                    "number": 3,
                    "no_connect": [self.targets["closed"]],
                    "no_bind": [self.targets["closed"], self.targets["unbindable"]],
                }
            )
        )
        (self.own / "hostile.py").write_bytes((HERE / "hostile_program.py").read_bytes())
        (self.own / "targets.json").write_text(json.dumps(self.targets))
        inherited = os.open(self.targets["secret"], os.O_RDONLY)
        try:
            done = subprocess.run(
                [
                    *(sys.executable, str(HERE / "in_its_place.py"), str(self.record)),
                    *(sys.executable, str(self.own / "hostile.py"), str(self.own / "targets.json")),
                    str(self.own / "results.json"),
                ],
                env={**os.environ, "TINYFAT_MASTER_KEY": "secret", "npm_config__authtoken": "secret", **surroundings},
                pass_fds=[inherited],
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
        finally:
            os.close(inherited)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads((self.own / "results.json").read_text())
        return found


@contextmanager
def prey(folder: Path) -> Iterator[Prey]:
    home = folder / "home"
    own, other, boxes, shared = home / "machines/m1", home / "machines/m2", home / "boxes", folder / "shared"
    for made in (own, other, boxes, shared, folder / "operator/.ssh"):
        made.mkdir(parents=True)
    files = {
        "secret": home / "secret.key",
        "other": other / "box.json",
        **{name: folder / "operator/.ssh" / name for name in ("private", "movable", "writable", "chmod")},
    }
    for name, file in files.items():
        file.write_text(f"the operator's {name}")
        file.chmod(0o600)
    with ExitStack() as stack:
        plane = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", PLANE, "plane"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "KEY": "secret"},
            )
        )  # fmt: skip
        stack.callback(plane.kill)
        assert plane.stdout is not None
        abstract = f"tinyfat-test-{os.getpid()}"
        path = home / ".s.PGSQL.5432"
        targets: dict[str, Any] = {
            **{name: str(file) for name, file in files.items()},
            "secret_name": "secret.key",
            "own": str(own),
            "record": str(boxes / "m1.json"),
            "shared": str(shared),
            "package": str(Path(tinyfat.__file__).parent),
            "pid": plane.pid,
            "address": plane.stdout.readline().decode().strip(),
            "socket": str(path),
            "abstract": abstract,
            "memory": stack.enter_context(_shared_memory()),
            "unbindable": free_port(),
            "others_port": BOXES_PORTS.start + 9 * PORTS_EACH,
        }
        before = Path.cwd()
        os.chdir(home)  # a socket's path is short
        try:
            _greeting(stack, socket.AF_UNIX, path.name)
        finally:
            os.chdir(before)
        _greeting(stack, socket.AF_UNIX, "\0" + abstract)
        targets["closed"] = _greeting(stack, socket.AF_INET, ("127.0.0.1", 0))[1]
        targets["open"] = _greeting(stack, socket.AF_INET, ("127.0.0.1", 0))[1]
        yield Prey(home, own, boxes / "m1.json", targets)


def _greeting(stack: ExitStack, family: int, address: Any) -> Any:
    """Says hello to whoever connects; the address it has."""
    server = socket.socket(family)
    server.bind(address)
    server.listen()

    def greet() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.send(b"hello")

    thread = threading.Thread(target=greet, daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.close)
    stack.callback(server.shutdown, socket.SHUT_RDWR)
    return server.getsockname()


@contextmanager
def _shared_memory() -> Iterator[int]:
    """System V memory of the operator's; its number."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    number = libc.shmget(0, 4096, 0o1600)  # IPC_PRIVATE, IPC_CREAT
    at = libc.shmat(number, None, 0)
    ctypes.memmove(at, b"hello", 5)
    try:
        yield number
    finally:
        libc.shmdt(ctypes.c_void_p(at))
        libc.shmctl(number, 0, None)  # IPC_RMID
