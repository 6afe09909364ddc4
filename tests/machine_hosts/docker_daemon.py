"""A Docker engine of a test's own: no network of its own, nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.machine_speed import patient
from tests.running import until
from tinyfat.drivers.machines.docker_engine import DockerEngine

READY_SECONDS_MAX = 30.0


@asynccontextmanager
async def docker_daemon(folder: Path) -> AsyncIterator[str]:
    """Its URL."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("an engine of one's own needs root and dockerd (Debian: docker.io)")
    # Sockets lie under this one, whose names may have 104 letters, and containerd's own part of them has 38.
    run = Path(tempfile.mkdtemp(prefix="tinyfat-engine-"))
    url = f"unix://{run}/docker.sock"
    argv = ["--host", url, "--data-root", f"{folder}/data", "--exec-root", f"{run}/run", "--bridge=none"]
    argv += ["--pidfile", f"{run}/docker.pid", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = await asyncio.create_subprocess_exec("dockerd", *argv, stdout=log, stderr=log)
    try:

        async def answers() -> bool:
            assert daemon.returncode is None, (folder / "dockerd.log").read_text()[-2000:]
            return (run / "docker.sock").exists()

        await until(answers, READY_SECONDS_MAX, "dockerd answers")
        engine = DockerEngine(url)
        assert await engine.image("tinyfat:none") is None
        await engine.close()
        yield url
    finally:
        daemon.terminate()
        async with asyncio.timeout(patient(READY_SECONDS_MAX)):
            await daemon.wait()
        for line in Path("/proc/self/mounts").read_text().splitlines():
            # The host's own network, which it keeps by name.
            if (mounted := line.split()[1]).startswith((f"{folder}/", f"{run}/")):
                subprocess.run(["umount", mounted], check=True)
        shutil.rmtree(run)
