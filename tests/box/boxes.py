"""A real box, as a process, for tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import tinyfat
from tests.machine_speed import patient
from tinyfat.box.process_table import ProcessSeen, everyone

EXIT_SECONDS = 20.0


class Box:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tinyfat.box",
            "--folder",
            str(self.folder),
            env={**os.environ, "PYTHONPATH": str(Path(tinyfat.__file__).parent.parent)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.exit()

    async def exit(self) -> int:
        assert self.process is not None
        async with asyncio.timeout(patient(EXIT_SECONDS)):
            _, errors = await self.process.communicate()
        if errors:
            print(errors.decode())  # pytest shows it where the test fails
        assert self.process.returncode is not None
        return self.process.returncode

    def running(self) -> list[ProcessSeen]:
        """Every process whose command line names this box's folder: the box, its runtime, what that began."""
        return [one for one in everyone() if str(self.folder) in _command_line(one.pid)]

    def runtime_pid(self) -> int:
        """Of the echo server; 0 while there is none."""
        return next((one.pid for one in self.running() if "echo_server" in _command_line(one.pid)), 0)

    def log(self) -> str:
        path = self.folder / "box.log"
        return path.read_text() if path.exists() else ""


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""
