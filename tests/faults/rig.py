"""What every scenario stands on: real control planes, a smarthost, senders, and the evidence at the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.box_processes import box_pid, runtime_pid
from tests.faults.claims import Evidence, Verdict, judge
from tests.faults.sender import Sender
from tests.faults.smarthost import Smarthost
from tests.running import CommandError, TinyFat, until

SETTLE_SECONDS_MAX = 150.0  # after the last mail: a smarthost's deferrals of 15 s and 30 s included
QUIET_SECONDS = 2.0  # after the last restart: whatever would be sent again, is sent by then
PROGRESS_SECONDS = 5.0
MID_TURN_SECONDS_MAX = 10.0
FINAL = {"answered", "failed", "sent"}


class Rig:
    """`async with Rig(...) as rig`: a smarthost; `up` adds control planes, which end with it."""

    def __init__(
        self, name: str, folder: Path, seed: int, *, slow: float = 0.2, pace: float = 0.5, talk: int = 25
    ) -> None:
        self.name = name
        self.folder = folder
        self.chance = random.Random(f"{seed} {name}")
        self.smarthost = Smarthost(seed)
        self.planes: list[TinyFat] = []
        self.sender = Sender(seed, self._ports, slow=slow, pace=pace, talk=talk)
        self.senders_know: list[TinyFat] = []  # the control planes they send to
        self.faults = 0
        self._ledger: list[dict[str, Any]] = []
        self._stack = AsyncExitStack()
        self._began = time.monotonic()

    async def __aenter__(self) -> Rig:
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._stack.enter_async_context(self.smarthost)
        progress = asyncio.create_task(self._progress())
        self._stack.callback(progress.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def ending_here(self) -> AsyncIterator[None]:
        """Control planes that are made in the block end with it, not with the whole."""
        whole, self._stack = self._stack, AsyncExitStack()
        try:
            async with self._stack:
                yield
        finally:
            self._stack = whole

    async def up(self, name: str, agents: Sequence[str], **settings: str) -> TinyFat:
        """A control plane with its agents, ready."""
        plane = self.plane(name, **settings)
        await self._stack.enter_async_context(running(plane))
        await asyncio.gather(*(plane.make_agent(agent) for agent in agents))
        return plane

    def plane(self, name: str, **settings: str) -> TinyFat:
        """One that is not started yet, and that whoever starts it ends."""
        plane = TinyFat(
            self.folder / name,
            TINYFAT_SMARTHOST=f"127.0.0.1:{self.smarthost.port}",
            TINYFAT_MAIL_RATE_THREAD="100000",
            TINYFAT_MAIL_RATE_SENDER="100000",
            **settings,
        )
        self.planes.append(plane)
        self.senders_know.append(plane)
        return plane

    @asynccontextmanager
    async def load(self, agents: Sequence[str]) -> AsyncIterator[None]:
        """Mail arrives while the block runs; at its end every mail that was begun has been accepted."""
        async with self.sender.writing(agents):
            yield

    async def pause(self, shortest: float, longest: float) -> None:
        await asyncio.sleep(self.chance.uniform(shortest, longest))

    def say(self, words: str) -> None:
        print(f"  {self.name:<10} {time.monotonic() - self._began:5.0f} s  {words}", flush=True)

    async def settled(self, asked: TinyFat, agents: Sequence[str]) -> None:
        """Every accepted mail has its reply, and every row its final state; or AssertionError names what is left."""
        accepted = {mail for talk in self.sender.conversations for mail in talk.accepted}

        async def answered() -> bool:
            return accepted <= self.smarthost.answered

        async def final() -> bool:
            with suppress(CommandError):
                ledgers = [await asked.mail(agent) for agent in agents]
                return all(row["state"] in FINAL for ledger in ledgers for row in ledger)
            return False

        with suppress(AssertionError):  # what is missing, the claims name one by one
            await until(answered, SETTLE_SECONDS_MAX, "every mail has its reply")
            await until(final, SETTLE_SECONDS_MAX, "every row of the ledger has its final state")

    async def collect(self, asked: TinyFat, agents: Sequence[str]) -> None:
        """Settle, and take down the ledger as `asked` tells it by its command line. It is killed and started once more
        before, so that what it forgot to write down would be done again under our eyes."""
        await self.settled(asked, agents)
        await asked.kill()
        await asked.start()
        await asyncio.sleep(QUIET_SECONDS)
        for agent in agents:
            self._ledger += await asked.mail(agent)

    def verdict(self, *, repeats_max: int = 0, bad_news_for: Sequence[str] = ()) -> Verdict:
        """On all that was collected. `repeats_max`: second copies of a reply that can be explained."""
        turns = [line for plane in self.planes for line in plane.turns_log()]
        replies = list(self.smarthost.received)
        allowed = frozenset(bad_news_for)
        return judge(Evidence(self.sender.conversations, replies, self._ledger, turns, allowed, repeats_max))

    def _ports(self) -> Sequence[int]:
        return [plane.smtp_port for plane in self.senders_know]

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            replies = len(self.smarthost.answered)
            self.say(f"{self.faults} faults, {self.sender.accepted} mails accepted, {replies} answered")


@asynccontextmanager
async def running(plane: TinyFat) -> AsyncIterator[None]:
    """It is up, and at the end nothing of it stays, even where it is just starting when the block is left."""
    await plane.start()
    try:
        yield
    finally:
        with suppress(AssertionError):
            await plane.ready()  # before that it would end without ending its machines
        await plane.__aexit__()


def processes(plane: TinyFat) -> list[psutil.Process]:
    """Everything of this home that runs: the control plane, the database, the boxes, the runtimes."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = any(str(plane.home) in word for word in process.cmdline())
            if ours or (plane.process is not None and process.pid == plane.process.pid):
                found += [process, *process.children(recursive=True)]
    return list(dict.fromkeys(found))


class Machine:
    """The folder of one agent's machine on a control plane's host, as that host sees it."""

    def __init__(self, plane: TinyFat, agent: str) -> None:
        self.agent = agent
        self.home = plane.home
        boxes = plane.home.glob("machines/*/box.json")
        self.folder = next(file.parent for file in boxes if json.loads(file.read_text())["agent_name"] == agent)

    def box_pid(self) -> int | None:
        return box_pid(self.home, self.folder.name)

    def runtime_pid(self) -> int | None:
        return runtime_pid(self.home, self.folder.name)

    def turn_runs(self) -> bool:
        """A turn was received and is not answered yet."""
        open_turns: set[str] = set()
        with suppress(OSError):
            for line in (self.folder / "state" / "turns.log").read_text().splitlines():
                event = json.loads(line)
                (open_turns.discard if event["event"] == "answered" else open_turns.add)(event["turn"])
        return bool(open_turns)

    async def in_turn(self) -> None:
        async def runs() -> bool:
            return self.turn_runs()

        await until(runs, MID_TURN_SECONDS_MAX, f"{self.agent} has a turn that runs")


def kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> bool:
    """False where nothing of that id runs any more."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
