"""The chain a user would build by hand: Postfix hands each mail to a script by pipe(8), the script asks the same echo
runtime and gives the reply to that Postfix's sendmail, and Postfix relays it to the same sink."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import websockets
from tests.running import free_port, until

import tinyfat
from bench.ours import Chain
from bench.postfix import Postfix
from bench.sink import Sink
from tinyfat.box.runtimes.echo_script import TOKEN_VARIABLE
from tinyfat.box.runtimes.loopback import http_get

RUNTIME_SECONDS_MAX = 30.0
SCRIPTS_AT_ONCE = 50  # what Postfix's own limit of 20 would hold back
SCRIPT_USER = "nobody"  # pipe(8) refuses root and Postfix's own


class NoPython(Exception):
    """No Python that an ordinary user may run was found for the script."""


@asynccontextmanager
async def by_hand(folder: Path, sink: Sink) -> AsyncIterator[Chain]:
    """`folder`'s path must be open to all users. Raises NoPython, PostfixFailed."""
    token = secrets.token_hex(32)
    async with _echo(folder / "echo", token) as port:
        script = await _script(folder / "script")
        argv = f"{script} ws://127.0.0.1:{port} {token} ${{sender}} ${{recipient}}"
        services = f"byhand unix - n n - {SCRIPTS_AT_ONCE} pipe\n  flags=R user={SCRIPT_USER} argv={argv}\n"
        settings = {
            "relay_domains": "tinyfat.localhost",
            "transport_maps": "inline:{tinyfat.localhost=byhand:}",
            "byhand_destination_recipient_limit": "1",
            "byhand_destination_concurrency_limit": str(SCRIPTS_AT_ONCE),
            "relayhost": f"[127.0.0.1]:{sink.port}",
        }
        async with Postfix(folder / "postfix", settings, services, as_the_systems=True) as postfix:
            yield Chain("by hand", postfix.port, folder / "echo", names_turns=False)


@asynccontextmanager
async def _echo(folder: Path, token: str) -> AsyncIterator[int]:
    port = free_port()
    folder.mkdir(parents=True)
    source = str(Path(tinyfat.__file__).resolve().parent.parent)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tinyfat.box.runtimes.echo_server",
        "--state", str(folder), "--workspace", str(folder), "--port", str(port),
        env={"PATH": os.defpath, "PYTHONPATH": source, TOKEN_VARIABLE: token}, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    async def ready() -> bool:
        try:
            return (await http_get(f"ws://127.0.0.1:{port}", "/readyz"))[0] == 200
        except (OSError, ValueError):
            return False

    try:
        await until(ready, RUNTIME_SECONDS_MAX, "the echo runtime is ready")
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _script(folder: Path) -> str:
    """The command that runs it, as anybody: Python, with the WebSocket library beside the script and compiled."""
    packages = folder / "packages"
    shutil.copytree(Path(websockets.__file__).parent, packages / "websockets")
    script = folder / "by_hand_pipe.py"
    shutil.copy(Path(__file__).with_name("by_hand_pipe.py"), script)
    for python in (sys.executable, "/usr/bin/python3"):
        if await asyncio.to_thread(_runs, python, packages):
            return f"{python} -s {script}"
    raise NoPython(f"neither {sys.executable} nor /usr/bin/python3 runs as {SCRIPT_USER}")


def _runs(python: str, packages: Path) -> bool:
    """As the script's user. What that user may only read, root compiles first."""
    importing = "import sys; sys.path.insert(0, sys.argv[1]); import websockets.sync.client"
    try:
        subprocess.run([python, "-m", "compileall", "-q", str(packages)], check=True, capture_output=True)
        argv = [python, "-c", importing, str(packages)]
        subprocess.run(argv, check=True, capture_output=True, user=SCRIPT_USER, extra_groups=[])
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
