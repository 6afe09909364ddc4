"""An agent on a server of its own: from its order to its first answered mail, on machines of this host (root, Debian).

On containers of systemd with OpenClaw: cold, each step's share, and warm from the pool, against the same machine made
by hand (bench/server_by_hand): from the same image, and from plain Debian as the guides have it. On virtual machines
with echo: from a cold image, as clones of a booted one, and warm from a pool of such clones.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.machine_hosts.base_image import as_built
from tests.running import free_port, until
from tests.stories.servers_town import PROGRAMS, Town, processes, town
from tests.stories.town import PostOffice

from bench import server_by_hand
from bench.figures import Figure, compared, percentile
from tinyfat.drivers.machines.local_vm import images_folder
from tinyfat.drivers.machines.nspawn import BASE
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.settings import Settings

ROUNDS = 5
ROUNDS_BY_THE_BOOK = 1  # from plain Debian: minutes each
ROUNDS_VIRTUAL = 2  # without KVM minutes each
POOL_SECONDS_MAX = 900.0
MADE_SECONDS_MAX = 900.0
LOCATION = "here"
QEMU = "qemu-system-x86_64"
COLD_GOAL, WARM_GOAL, SHARE_GOAL = 60.0, 10.0, 3.0  # seconds


@dataclass(slots=True)
class Rounds:
    """Seconds, of each round."""

    whole: list[float] = field(default_factory=list)  # from the order to the answered mail
    ready: list[float] = field(default_factory=list)  # from the order to the runtime's own word that it is
    ours: list[float] = field(
        default_factory=list
    )  # of the whole, without what the runtime took to start and to answer twice
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def missing() -> str:
    """Why it cannot be measured here; "" where it can."""
    if os.geteuid() != 0:
        return "machines on this host need root"
    absent = [name for name in (*PROGRAMS, QEMU) if shutil.which(name) is None]
    return f"tests/stories/install_machine_tools.sh was not run: {', '.join(absent)} missing" if absent else ""


async def measure(folder: Path, rounds: int = ROUNDS) -> list[Figure]:
    async with PostOffice() as office:
        return [
            *await containers(folder, office, rounds),
            *await virtual_machines(folder, office, min(rounds, ROUNDS_VIRTUAL)),
        ]


async def containers(folder: Path, office: PostOffice, rounds: int) -> list[Figure]:
    async with town(folder / "cold", office) as here:
        image = await here.image("openclaw")
        cold, same_image = Rounds(), []
        for number in range(rounds):
            await _round(here, cold, "openclaw", f"cold-{number}", "--image", image)
            same_image.append(await server_by_hand.from_our_image(folder / f"same-{number}", image))
    by_the_book = [
        await server_by_hand.from_plain_debian(folder / f"book-{number}", BASE.name)
        for number in range(min(rounds, ROUNDS_BY_THE_BOOK))
    ]
    pool = {"TINYFAT_POOL": f"{LOCATION}=1", "TINYFAT_POOL_RUNTIME": "openclaw", "TINYFAT_IMAGE": image}
    async with town(folder / "warm", office, **pool) as here:
        warm = await _claims(here, "openclaw", rounds)
    share = statistics.median(one - other for one, other in zip(cold.ready, same_image, strict=True))
    return [
        Figure("cold order to answered mail, openclaw, p95", "s", percentile(cold.whole, 95), goal=COLD_GOAL),
        compared("  to runtime ready; peer: by hand, same image", "s", cold.ready, same_image),
        Figure("  what we add to that", "s", share, goal=SHARE_GOAL),
        Figure("  without OpenClaw's own start and answers", "s", statistics.median(cold.ours)),
        _beside("  to runtime ready; peer: by hand, plain Debian", cold.ready, by_the_book),
        *_steps(cold),
        Figure("warm claim to answered mail, openclaw, p95", "s", percentile(warm.whole, 95), goal=WARM_GOAL),
        Figure("  without OpenClaw's own answers", "s", statistics.median(warm.ours), goal=SHARE_GOAL),
        *_steps(warm),
    ]


async def virtual_machines(folder: Path, office: PostOffice, rounds: int) -> list[Figure]:
    image = await _built(folder / "builder", office)
    own = _own_cache(folder / "cache", image)
    async with town(folder / "virtual", office, **_virtual(), **own) as here:
        cold, cloned = Rounds(), Rounds()
        for number in range(rounds):
            await _round(here, cold, "echo", f"booted-{number}", "--image", image, clones=False)
        began = time.monotonic()
        await here.tinyfat.command("image", "freeze", image, seconds=MADE_SECONDS_MAX)
        frozen = time.monotonic() - began
        for number in range(rounds):
            await _round(here, cloned, "echo", f"cloned-{number}", "--image", image, clones=True)
    pool = {"TINYFAT_POOL": f"{LOCATION}=1", "TINYFAT_POOL_RUNTIME": "echo", "TINYFAT_IMAGE": image}
    async with town(folder / "virtual-pool", office, **_virtual(), **own, **pool) as here:
        warm = await _claims(here, "echo", rounds, clones=True)
    return [
        Figure("virtual machine booted, to answered mail, echo", "s", statistics.median(cold.whole), goal=COLD_GOAL),
        *_steps(cold),
        compared("virtual machine cloned, to answered mail; peer: booted", "s", cloned.whole, cold.whole),
        *_steps(cloned),
        Figure("  freezing one, once an image", "s", frozen),
        Figure("warm claim to answered mail, echo", "s", percentile(warm.whole, 95), goal=WARM_GOAL),
        Figure("  without echo's own answers", "s", statistics.median(warm.ours), goal=SHARE_GOAL),
    ]


def _virtual() -> dict[str, str]:
    return {
        "TINYFAT_MACHINE": "local_vm",
        "TINYFAT_BOX_LISTEN": f"127.0.0.1:{free_port()}",
        "TINYFAT_BOX_RELAY_LISTEN": f"127.0.0.1:{free_port()}",
    }


async def _built(folder: Path, office: PostOffice) -> str:
    async with town(folder, office) as here:
        return await here.image("echo", "local_vm")


def _own_cache(cache: Path, image: str) -> dict[str, str]:
    """A cache in which nothing of the image is frozen yet: in this user's own one something may be."""
    built = ImageFolder(images_folder(Settings().cache)).chain(image)[0]
    as_built(built, ImageFolder(images_folder(cache)))
    return {"TINYFAT_CACHE": str(cache)}


async def _round(here: Town, rounds: Rounds, runtime: str, name: str, *more: str, clones: bool | None = None) -> None:
    """`clones`: whether the virtual machines are to be clones of a booted one; None: they are none."""
    began = time.monotonic()
    await here.make(name, runtime, *more, seconds=MADE_SECONDS_MAX)
    message_id, _ = await here.ask(name, "Is anybody there?")
    rounds.whole.append(time.monotonic() - began)
    if clones is not None:
        seen = ["-incoming" in one.cmdline() for one in processes(here.hosts) if one.name() == QEMU]
        assert set(seen) == {clones}, f"{name}: not what is measured; see {here.tinyfat.log}"
    took = _took(await here.operator.ask("GET", f"agents/{name}"))
    rounds.ready.append(sum(seconds for step, seconds in took.items() if step not in _AFTER_READY))
    own = took[_READY] + took[_ANSWERED] + await _turn(here, name, message_id)
    rounds.ours.append(rounds.whole[-1] - own)
    for step, seconds in took.items():
        rounds.steps[step].append(seconds)
    await here.tinyfat.command("agent", "destroy", name, "--yes")
    print(f"servers: {name}, {runtime}: {rounds.whole[-1]:.1f} s", file=sys.stderr)


async def _claims(here: Town, runtime: str, count: int, clones: bool | None = None) -> Rounds:
    """The pool is full again before each."""
    rounds = Rounds()
    for number in range(count):
        await until(lambda: _waiting(here), POOL_SECONDS_MAX, "a machine waits in the pool")
        await _round(here, rounds, runtime, f"warm-{number}", "--location", LOCATION, clones=clones)
    return rounds


async def _waiting(here: Town) -> bool:
    machines = (await here.operator.ask("GET", "fleet"))["machines"]
    return any(machine["pool"] == "ready" for machine in machines)


_READY, _ANSWERED = "runtime ready", "a real question answered"
_AFTER_READY = (_ANSWERED, "welcome mail")


def _took(agent: dict[str, Any]) -> dict[str, float]:
    """Seconds of each step of its making."""
    at = datetime.fromisoformat
    return {
        step["name"]: (at(step["ended_at"]) - at(step["started_at"])).total_seconds()
        for step in agent["steps"]
        if step["flow"] == "provision"
    }


async def _turn(here: Town, name: str, message_id: str) -> float:
    """Seconds that the runtime took for its answer to this mail."""
    shown = await here.operator.ask("GET", f"mail/{(await here.operator.incoming(name, message_id))['id']}")
    return float(shown["turn"]["answered_at"] - shown["turn"]["asked_at"])


def _steps(rounds: Rounds) -> list[Figure]:
    return [Figure(f"    {step}", "s", statistics.median(seconds)) for step, seconds in rounds.steps.items()]


def _beside(what: str, ours: Sequence[float], peers: Sequence[float]) -> Figure:
    """Fewer rounds of the peer's: the medians are compared."""
    one, other = statistics.median(ours), statistics.median(peers)
    return Figure(what, "s", one, other, one / other)
