"""One at a time, among all processes of this host: a lock on a file, which ends with its process."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tinyfat.machine_hosts.machine_host import HostFailed

LOCK_SECONDS_MAX = 120.0
LOCK_POLL_SECONDS = 0.02


@asynccontextmanager
async def locked(file: Path, seconds: float = LOCK_SECONDS_MAX) -> AsyncIterator[None]:
    """Raises HostFailed where another keeps it for longer than that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    deadline = asyncio.get_running_loop().time() + seconds
    with file.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise HostFailed(f"{file} is locked by another process for more than {seconds:g} s.") from error
                await asyncio.sleep(LOCK_POLL_SECONDS)
        yield
