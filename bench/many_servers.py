"""A hundred agents on servers of their own, ordered at once: what it costs the control plane, and whether any waits.

Against the stand-in for Hetzner with the memory backend, its rate limit the vendor's; the boxes are bench/crowd's. An
agent that is there already is written to all the while.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from tests.running import OWNER, TinyFat, free_port, letter, until
from tests.stories.town import Operator, new_id

from bench.crowd import TOKEN, Crowd, crowd
from bench.figures import Figure, percentile
from bench.idle import MB, cpu_seconds, database_cpu_seconds
from bench.sink import Sink, reply_to
from tinyfat.store.embedded import EmbeddedPostgres

AGENTS = 100
READY_SECONDS_MAX = 600.0
GONE_SECONDS_MAX = 600.0
LOOK_SECONDS = 0.25
MAIL_PAUSE_SECONDS = 0.5
REPLY_SECONDS_MAX = 60.0
DOMAIN = "agents.tinyfat.localhost"
CPU_GOAL = 100.0  # percent of a core
MEMORY_MB_GOAL = 300.0
BETWEEN_STEPS_SECONDS_GOAL = 1.0  # from a step's end to the next one's beginning: over it, a flow was left waiting


@dataclass(slots=True)
class Watch:
    """The control plane's process and its database's, looked at again and again."""

    plane: psutil.Process
    database: psutil.Process
    rss: float = 0.0  # the most, in bytes
    began: float = field(default_factory=time.monotonic)
    spent: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.spent = self._now()

    async def look(self) -> None:
        """Until cancelled."""
        while True:
            self.rss = max(self.rss, float(self.plane.memory_info().rss))
            await asyncio.sleep(LOOK_SECONDS)

    def percent(self) -> tuple[float, float]:
        """Of a core, since the beginning: the control plane's, the database's."""
        seconds = time.monotonic() - self.began
        own, theirs = self._now()
        return 100 * (own - self.spent[0]) / seconds, 100 * (theirs - self.spent[1]) / seconds

    def _now(self) -> tuple[float, float]:
        return cpu_seconds(self.plane), database_cpu_seconds(self.database)


async def measure(folder: Path, count: int = AGENTS) -> list[Figure]:
    box_port = free_port()
    async with Sink() as sink, crowd() as provider:
        settings = {
            "TINYFAT_DOMAIN": DOMAIN,
            "TINYFAT_SMARTHOST": f"127.0.0.1:{sink.port}",
            "TINYFAT_DNS": "local",
            "TINYFAT_DNS_LISTEN": f"127.0.0.1:{free_port()}",
            "TINYFAT_MACHINE": "hetzner",
            "TINYFAT_HETZNER_URL": provider.url,
            "TINYFAT_HETZNER_TOKEN": TOKEN,
            "TINYFAT_BOX_LISTEN": f"127.0.0.1:{box_port}",
            "TINYFAT_BOX_URL": f"https://127.0.0.1:{box_port}",
            "TINYFAT_BOX_RELAY_LISTEN": f"127.0.0.1:{free_port()}",
            "TINYFAT_MAIL_RATE_SENDER": "1000000",
            "TINYFAT_MAIL_QUICK_ANSWERS": "0",
        }
        async with TinyFat(folder / "many", **settings) as tinyfat, Operator(tinyfat) as operator:
            return await _measured(tinyfat, operator, provider, sink, count)


async def _measured(tinyfat: TinyFat, operator: Operator, provider: Crowd, sink: Sink, count: int) -> list[Figure]:
    for count_before, name in enumerate(("first", "alone"), 1):  # the first one pays for what is made but once
        await operator.ask("POST", "agents", json={"name": name, "owner": OWNER, "runtime": "echo"})
        await _all_ready(operator, provider, count_before)
    asked = provider.requests()
    watch, mails = _watch(tinyfat), list[float]()
    beside = [asyncio.create_task(watch.look()), asyncio.create_task(_write(tinyfat, sink, mails))]
    began = time.monotonic()
    try:
        names = [f"agent-{number}" for number in range(count)]
        await asyncio.gather(
            *(operator.ask("POST", "agents", json={"name": name, "owner": OWNER, "runtime": "echo"}) for name in names)
        )
        accepted = time.monotonic() - began
        agents = await _all_ready(operator, provider, count + 2)
    finally:
        for task in beside:
            task.cancel()
        ended = await asyncio.gather(*beside, return_exceptions=True)
    early = [error for error in ended if not isinstance(error, asyncio.CancelledError)]
    assert not early, f"what was to go on beside them ended: {early}"
    seconds = time.monotonic() - began
    cpu, database = watch.percent()
    shown = [await operator.ask("GET", f"agents/{name}") for name in names]
    print(f"many: {len(agents)} agents after {seconds:.1f} s, {len(mails)} mails beside them", file=sys.stderr)
    return [
        Figure(f"{count} agents at once: all accepted", "s", accepted),
        Figure(f"{count} agents at once: all ready", "s", seconds),
        Figure("  control plane, memory (most)", "MB", watch.rss / MB, goal=MEMORY_MB_GOAL),
        Figure("  control plane, processor", "% of a core", cpu, goal=CPU_GOAL),
        Figure("  of it for each agent", "core s", cpu * seconds / 100 / count),
        Figure("  Postgres, processor", "% of a core", database),
        Figure("  requests to the provider, for each agent", "", (provider.requests() - asked) / count),
        Figure("  a mail's way meanwhile, p50", "s", statistics.median(mails)),
        Figure("  a mail's way meanwhile, p95", "s", percentile(mails, 95)),
        *_steps(shown, await operator.ask("GET", "agents/alone")),
    ]


def _watch(tinyfat: TinyFat) -> Watch:
    assert tinyfat.process is not None
    database = EmbeddedPostgres(tinyfat.home).process()
    assert database is not None
    return Watch(psutil.Process(tinyfat.process.pid), database)


async def _all_ready(operator: Operator, provider: Crowd, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def ready() -> bool:
        found[:] = await operator.ask("GET", "agents")
        failed = [agent for agent in found if agent["state"] not in ("creating", "ready")]
        assert not failed and not provider.host.failures, (failed[:3], provider.host.failures[:3])
        await asyncio.sleep(LOOK_SECONDS)
        return sum(agent["state"] == "ready" for agent in found) >= count

    await until(ready, READY_SECONDS_MAX, f"{count} agents are ready")
    return found


async def _write(tinyfat: TinyFat, sink: Sink, took: list[float]) -> None:
    """Until cancelled: one mail after the other, to the agent that is there."""
    while True:
        message_id = new_id()
        expected, began = sink.expect(message_id), time.monotonic()
        await tinyfat.send(letter("Still there?", to=f"first@{DOMAIN}", message_id=message_id))
        await reply_to(expected, message_id, REPLY_SECONDS_MAX)
        took.append(time.monotonic() - began)
        await asyncio.sleep(MAIL_PAUSE_SECONDS)


def _steps(agents: Sequence[Mapping[str, Any]], first: Mapping[str, Any]) -> list[Figure]:
    """The peer of each step is the same step of the agent that was made alone."""
    took: dict[str, list[float]] = defaultdict(list)
    waits: list[float] = []
    for agent in agents:
        steps = _provisioned(agent)
        for (_, _, ended), (_, began, _) in pairwise(steps):
            waits.append((began - ended).total_seconds())
        for name, began, ended in steps:
            took[name].append((ended - began).total_seconds())
    alone = {name: (ended - began).total_seconds() for name, began, ended in _provisioned(first)}
    whole = [(_provisioned(agent)[-1][2] - _provisioned(agent)[0][1]).total_seconds() for agent in agents]
    return [
        Figure("  between two steps of an agent, worst", "s", max(waits), goal=BETWEEN_STEPS_SECONDS_GOAL),
        Figure("  an agent's making, median; peer: alone", "s", statistics.median(whole), sum(alone.values())),
        Figure("  an agent's making, slowest; peer: alone", "s", max(whole), sum(alone.values())),
        *(
            Figure(f"    {name}, slowest; peer: alone", "s", max(seconds), alone[name])
            for name, seconds in took.items()
        ),
    ]


def _provisioned(agent: Mapping[str, Any]) -> list[tuple[str, datetime, datetime]]:
    at = datetime.fromisoformat
    return [
        (step["name"], at(step["started_at"]), at(step["ended_at"]))
        for step in agent["steps"]
        if step["flow"] == "provision"
    ]
