"""An agent on a server of its own: from its order to its first answered mail, on containers of systemd (root, Debian).

Cold with the echo runtime and with OpenClaw, each step's share; warm from the pool; and, for OpenClaw, against the same
machine made by hand: a shell script that mounts the same image, boots it and starts OpenClaw by a unit of its own,
with no mail, no name, no firewall, no keys.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.running import free_port, until
from tests.stories.servers_town import PROGRAMS, Town, town
from tests.stories.town import PostOffice

from bench.figures import Figure, compared
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.settings import Settings

ROUNDS = 5
READY_SECONDS_MAX = 240.0
POOL_SECONDS_MAX = 240.0
GONE_SECONDS_MAX = 30.0
LOCATION = "here"
BY_HAND = """\
mount -t overlay overlay -o lowerdir="$LOWER",upperdir="$PLACE/upper",workdir="$PLACE/work" "$PLACE/root" || exit
cat >"$PLACE/root/etc/systemd/system/by-hand.service" <<END
[Service]
User=tinyfat
StateDirectory=by-hand
Environment=HOME=/var/lib/by-hand PATH=/opt/tinyfat/node/current/bin:/usr/bin:/bin OPENCLAW_NO_RESPAWN=1
WorkingDirectory=/var/lib/by-hand
ExecStart=/bin/sh -c 'exec node /opt/tinyfat/runtimes/*/node_modules/openclaw/openclaw.mjs \\
  gateway run --port $PORT --allow-unconfigured'
END
mkdir -p "$PLACE/root/etc/systemd/system/multi-user.target.wants"
ln -s ../by-hand.service "$PLACE/root/etc/systemd/system/multi-user.target.wants/"
exec systemd-nspawn --quiet --boot --register=no --keep-unit --link-journal=no --console=pipe --directory="$PLACE/root"
"""


def missing() -> str:
    """Why it cannot be measured here; "" where it can."""
    if os.geteuid() != 0:
        return "machines on this host need root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"tests/stories/install_machine_tools.sh was not run: {', '.join(absent)} missing" if absent else ""


async def measure(folder: Path, rounds: int = ROUNDS) -> list[Figure]:
    figures: list[Figure] = []
    async with PostOffice() as office:
        async with town(folder / "cold", office) as here:
            figures += await _cold(here, "echo", rounds)
            figures += await _cold(here, "openclaw", rounds, folder)
            image = await here.image("openclaw")
        pool = {"TINYFAT_POOL": f"{LOCATION}=1", "TINYFAT_POOL_RUNTIME": "openclaw", "TINYFAT_IMAGE": image}
        async with town(folder / "warm", office, **pool) as here:
            figures.append(await _warm(here, rounds))
    return figures


async def _cold(here: Town, runtime: str, rounds: int, by_hand: Path | None = None) -> list[Figure]:
    image = await here.image(runtime)
    whole: list[float] = []
    ready: list[float] = []
    peers: list[float] = []
    shares: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        name = f"cold-{runtime}-{number}"
        began = time.monotonic()
        await here.make(name, runtime, "--image", image)
        await here.ask(name, "Is anybody there?")
        whole.append(time.monotonic() - began)
        took = _steps(await here.operator.ask("GET", f"agents/{name}"))
        ready.append(sum(seconds for step, seconds in took.items() if step not in _AFTER_READY))
        for step, seconds in took.items():
            shares[step].append(seconds)
        await here.tinyfat.command("agent", "destroy", name, "--yes")
        if by_hand is not None:
            peers.append(await _made_by_hand(by_hand / f"by-hand-{number}", image))
        print(f"servers: cold {runtime}, round {number + 1} of {rounds}: {whole[-1]:.1f} s", file=sys.stderr)
    steps = [Figure(f"  {runtime}: {step}", "s", statistics.median(seconds)) for step, seconds in shares.items()]
    return [
        Figure(f"cold order to first answered mail, {runtime}", "s", statistics.median(whole), goal=60),
        compared(f"cold order to runtime ready, {runtime}", "s", ready, peers),
        *steps,
    ]


_AFTER_READY = ("a real question answered", "welcome mail")


def _steps(agent: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each step of its making."""
    at = datetime.fromisoformat
    return {
        step["name"]: (at(step["ended_at"]) - at(step["started_at"])).total_seconds()
        for step in agent["steps"]
        if step["flow"] == "provision"
    }


async def _warm(here: Town, rounds: int) -> Figure:
    """The pool is full again before each claim."""
    whole: list[float] = []
    for number in range(rounds):
        await until(lambda: _waiting(here), POOL_SECONDS_MAX, "a machine waits in the pool")
        name = f"warm-{number}"
        began = time.monotonic()
        await here.make(name, "openclaw", "--location", LOCATION)
        await here.ask(name, "Is anybody there?")
        whole.append(time.monotonic() - began)
        await here.tinyfat.command("agent", "destroy", name, "--yes")
        print(f"servers: warm, round {number + 1} of {rounds}: {whole[-1]:.1f} s", file=sys.stderr)
    return Figure("warm claim to first answered mail, openclaw", "s", statistics.median(whole), goal=10)


async def _waiting(here: Town) -> bool:
    machines = (await here.operator.ask("GET", "fleet"))["machines"]
    return any(machine["pool"] == "ready" for machine in machines)


async def _made_by_hand(place: Path, image: str) -> float:
    """Seconds from the script's start to OpenClaw's own word that it is ready."""
    for name in ("upper", "work", "root"):
        (place / name).mkdir(parents=True)
    port = free_port()
    lower = ":".join(str(one.content) for one in _chain(image))
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", BY_HAND,
        env={**os.environ, "LOWER": lower, "PLACE": str(place), "PORT": str(port)}, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(lambda: _ready(process, port), READY_SECONDS_MAX, f"the OpenClaw made by hand at {place}")
        return time.monotonic() - began
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await until(lambda: _removed(place), GONE_SECONDS_MAX, f"{place} is gone")


async def _removed(place: Path) -> bool:
    """What ran in the container may still write while the kernel ends it."""
    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
    return not place.exists()


def _chain(image: str) -> Sequence[Any]:
    return ImageFolder(Settings().cache / "images" / "nspawn").chain(image)


async def _ready(process: asyncio.subprocess.Process, port: int) -> bool:
    assert process.returncode is None, "the container made by hand ended"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in line
