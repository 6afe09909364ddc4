"""Programs of this host, run to their end within a time."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tinyfat.machine_hosts.machine_host import HostFailed, HostRefused

PROGRAM_SECONDS_MAX = 60.0
ERROR_CHARS_MAX = 2000
_PATH = os.pathsep.join(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])


def require(programs: dict[str, str]) -> None:
    """`programs`: each with the Debian package that has it. Raises HostRefused, naming what to install."""
    missing = {package for program, package in programs.items() if shutil.which(program, path=_PATH) is None}
    if missing:
        raise HostRefused(
            f"This host lacks {', '.join(sorted(missing))}: apt-get install -y {' '.join(sorted(missing))}"
        )


async def run(
    argv: Sequence[str], *, seconds: float = PROGRAM_SECONDS_MAX, folder: Path | None = None, output: Path | None = None
) -> str:
    """Its standard output, or "" where that goes to the file `output`, errors too. Raises HostFailed."""
    file = await asyncio.to_thread(output.open, "ab") if output else None
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file or asyncio.subprocess.PIPE,
            stderr=file or asyncio.subprocess.PIPE,
            cwd=folder,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "TMPDIR": os.environ.get("TMPDIR", "/tmp")},  # noqa: S108
        )
    except OSError as error:
        raise HostFailed(f"{argv[0]} cannot be started: {error}") from error
    finally:
        if file:
            file.close()
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except BaseException as error:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise HostFailed(f"{' '.join(argv[:3])} did not end within {seconds:g} s.") from error
        raise
    if process.returncode != 0:
        said = f"see {output}" if output else (err or out).decode("utf-8", "replace").strip()[-ERROR_CHARS_MAX:]
        raise HostFailed(f"{' '.join(argv[:3])} ended with {process.returncode}: {said}")
    return (out or b"").decode("utf-8", "replace")
