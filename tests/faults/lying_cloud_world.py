"""A control plane that can die at any word it exchanges with a provider that lies; both live in virtual time.

The provider is our stand-in for Hetzner, over HTTP; the driver, the flows and the ledger (Postgres) are the real ones.
What waits in a flow puts the provider's clock forward instead: an hour of looking takes a second. At each such moment
the boxes of the machines that truly run say their word, and now and then the reconciliation looks, as it does in life.
Of flows that run side by side (`together`) none's waiting takes the time of another that is at work: the clock goes on
once all of them wait, and no farther than to whoever is to look next.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from hcloud import Client

from tests.flows.crashing import Crashed, RememberedSteps
from tests.flows.small_world import DOMAIN, PlainSteps, SmallWorld
from tinyfat.domain.link import RuntimeState, Status
from tinyfat.domain.machines import MachineState
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.drivers.dns.hetzner import HetznerDns
from tinyfat.drivers.hetzner_cloud import HetznerCloud
from tinyfat.drivers.machines.hetzner.labels import MACHINE
from tinyfat.drivers.machines.hetzner.servers import HetznerServers
from tinyfat.engine.steps import Flow
from tinyfat.flows import first_words, watch
from tinyfat.flows.pool import Pool
from tinyfat.flows.replace import Replace
from tinyfat.ports.requests import RequestsShort
from tinyfat.ports.server_ledger import MovePhase
from tinyfat.standins.hetzner.cloud import Cloud, Options
from tinyfat.standins.hetzner.server import Standin, hetzner_app
from tinyfat.standins.lies import Lies
from tinyfat.standins.serving import served
from tinyfat.store.database import Database
from tinyfat.store.enrolments import EnrolmentStore
from tinyfat.store.request_budgets import StoredLimits
from tinyfat.store.state_moves import MoveFolder, StateMoveStore

T = TypeVar("T")
TOKEN = "hetzner-token-PLANTED-77aa"
INSTALLATION = "4f6c2a10b7d9"
LOCATIONS = ("fsn1", "nbg1", "hel1")
KIND = "cloud"
ACTION_SECONDS = 0.5
PAUSE_SECONDS_FIRST = 0.5  # virtual, as those below
PAUSES = 20  # of the longest kind in the whole time that is waited for something
SHORT_SECONDS_MAX = 300.0  # virtual: a lie about the rate limit may be told for ever
PROBE_SECONDS_MAX = 2.0  # real: a question asked of a machine that does not run
RECONCILED_MEANWHILE = 0.02  # the probability at each look

Death = tuple[str, int, bool]  # ("call" or "step", which one from now, after its work)


class Life:
    """Of one process of the control plane."""

    def __init__(self) -> None:
        self.calls_left: int | None = None
        self.after = False

    def spend(self, after: bool) -> None:
        if self.calls_left is None or after is not self.after:
            return
        if self.calls_left == 0:
            raise Crashed
        self.calls_left -= 1


class MortalCloud(HetznerCloud):
    """The connection of a process that may die before a request, or before it heard the answer."""

    life: Life

    async def call(self, doing: str, ask: Callable[[Client], T]) -> T:
        self.life.spend(after=False)
        answer = await super().call(doing, ask)
        self.life.spend(after=True)
        return answer


class Queue:
    """Implements engine FlowStatus: what was begun, for `LyingWorld.drain` to run."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, str]] = []

    async def start(self, flow: str, flow_id: str, subject: str) -> None:
        if (flow, subject) not in self.waiting:
            self.waiting.append((flow, subject))

    async def broken(self, flow_id: str) -> bool:
        return False


@dataclass(slots=True)
class Provider:
    cloud: Cloud
    standin: Standin
    url: str

    @property
    def asked(self) -> list[int]:
        """The status of every answer it gave."""
        return [call["status"] for call in self.standin.calls]


class LyingWorld(SmallWorld):
    """`provider.cloud` is the truth."""

    def __init__(
        self, database: Database, provider: Provider, chance: random.Random, folder: Path, listing_seconds: float
    ) -> None:
        self.provider, self.chance, self.listing_seconds = provider, chance, listing_seconds
        super().__init__(database, RateCaps(10_000, 10_000), 30.0)
        self.queue = Queue()
        self.flows = self.queue  # type: ignore[assignment]
        self.enrolments, self.moves = EnrolmentStore(database), StateMoveStore(database)
        files = MoveFolder(folder)
        self.replace = Replace(
            self.agents, self.kinds, self.records, self.servers, self.moves, files, self.orders, self.making,
            self.addressing, self.runs, self.words, self.owner_mail, lambda: datetime.now(UTC),
        )  # fmt: skip
        self.life = Life()
        self.opened: list[HetznerCloud] = []
        self.deaths = 0
        self.at_a_look: Callable[[], Awaitable[None]] | None = None  # done once, at some look
        self.looks_before_it = 0
        self._reconciling = False
        self._side_by_side = 1  # flows under way
        self._waiting: list[tuple[float, int, asyncio.Event]] = []  # a heap, by when each is to look again
        self._order = itertools.count()
        offered = self.box.offered
        self.box.offered = lambda payload: (  # type: ignore[method-assign]
            offered(payload) if payload.partition(" ")[0] in self.running() else None
        )
        self.reborn()

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.provider.cloud.clock(), UTC)

    def reborn(self) -> None:
        """A new process: it knows what the ledger knows."""
        self.life.calls_left = None
        clock = self.provider.cloud.clock
        connection = MortalCloud(TOKEN, f"{self.provider.url}/v1", clock, clock, self.sleep)
        connection.life = self.life
        connection.share(StoredLimits(self.database, clock))
        self.opened.append(connection)
        self.driver = HetznerServers(
            connection,
            INSTALLATION,
            lambda order: f"#cloud-config\n# {order.id}\n",
            locations=LOCATIONS,
            euro=Decimal("1.10"),
            clock=clock,
            listing_seconds=self.listing_seconds,
        )
        self.kinds._drivers[KIND] = self.driver
        self.addressing._dns = HetznerDns(connection, DOMAIN)

    def warm_pool(self, **wanted: int) -> Pool:
        """It goes by the ledger's own time: who was heard of lately is no matter of the provider's clock."""
        pool = self.pool(**wanted)
        pool._clock = lambda: datetime.now(UTC)
        return pool

    # Time.

    async def sleep(self, seconds: float) -> None:
        """Of a driver, in the midst of a call: nothing else may be done in its place, or it would wait for itself."""
        self.provider.cloud.clock.advance(seconds)
        await self.provider.standin.up_to_date()

    async def together(self, *flows: Awaitable[None]) -> None:
        async def one(flow: Awaitable[None]) -> None:
            try:
                await flow
            finally:
                self._side_by_side -= 1
                self._wake()

        self._side_by_side = len(flows)
        await asyncio.gather(*(one(flow) for flow in flows))
        self._side_by_side = 1

    def _wake(self) -> None:
        if self._waiting and len(self._waiting) >= self._side_by_side:
            at, _, woken = heapq.heappop(self._waiting)
            self.provider.cloud.clock.advance(max(0.0, at - self.provider.cloud.clock()))
            woken.set()

    async def pass_time(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self._waiting, (self.provider.cloud.clock() + seconds, next(self._order), woken))
        self._wake()
        await woken.wait()
        await self.provider.standin.up_to_date()
        await self.boxes_speak()
        if self.at_a_look is not None:
            self.looks_before_it -= 1
            if self.looks_before_it < 0:
                act, self.at_a_look = self.at_a_look, None
                await act()
        if not self._reconciling and self.chance.random() < RECONCILED_MEANWHILE:
            await self.compare()

    async def compare(self) -> None:
        self._reconciling = True
        try:
            await self.reconcile.run()
        finally:
            self._reconciling = False

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float, wait: object = None) -> bool:
        """In place of flows/watch `until`: the same, in the provider's time, which passes whatever is waited for."""
        clock = self.provider.cloud.clock
        deadline, pause, waited = clock() + seconds, PAUSE_SECONDS_FIRST, 0.0
        while True:
            try:
                if await condition():
                    return True
            except RequestsShort as error:
                short = await watch.short_of_requests(error, waited)
                await self.pass_time(short)
                deadline, waited = deadline + short, waited + short
                continue
            if clock() > deadline:
                return False
            await self.pass_time(pause)
            pause = min(pause * 1.5, max(seconds / PAUSES, PAUSE_SECONDS_FIRST))

    # Machines.

    def running(self) -> set[str]:
        """Our ids of the machines that truly run."""
        cloud = self.provider.cloud
        named = {cloud.machine_name(server.id): server for server in cloud.servers.values()}
        running = [name for name, one in self.hosted().items() if one is MachineState.RUNNING]
        return {named[name].labels.get(MACHINE, "") for name in running if name in named}

    def hosted(self) -> dict[str, MachineState]:
        """By the host's name for it."""
        return {name: one.state for name, one in self.provider.cloud.machines.machines_by_name.items()}  # type: ignore[attr-defined]

    async def boxes_speak(self) -> None:
        for machine_id in self.running():
            machine = await self.records.get(machine_id)
            if machine is None or not machine.wanted:
                continue
            await self.enrolments.fetched(machine_id, machine.identity_serial)
            await self.records.heard(machine_id, Status(RuntimeState.READY, "its last words"))
            move = await self.moves.latest_of(machine_id)
            if move is not None and (move.phase, move.from_machine) == (MovePhase.ASKED, machine_id):
                await self.moves.kept(move.id, "0" * 64, 1)
            elif move is not None and (move.phase, move.to_machine) == (MovePhase.KEPT, machine_id):
                await self.moves.restored(move.id)

    # Flows.

    async def honest(self, flow: Flow, subject: str) -> None:
        await flow(PlainSteps(), subject)  # type: ignore[arg-type]

    async def through(self, flow: Flow, subject: str, deaths: list[Death]) -> None:
        """Run it to its end; the process dies at each of `deaths`, and another goes on."""
        steps = RememberedSteps()
        for death in [*deaths, None]:
            steps.count, steps.dies_at, self.life.calls_left = 0, None, None
            if death is not None and death[0] == "step":
                steps.dies_at = (death[1], death[2])
            elif death is not None:
                self.life.calls_left, self.life.after = death[1], death[2]
            try:
                await flow(steps, subject)  # type: ignore[arg-type]
                self.life.calls_left = None
                return
            except Crashed:
                self.deaths += 1
                self.reborn()

    async def drain(self, deaths: Callable[[], list[Death]]) -> None:
        known = {"pool": self.warm_pool().run, "pool_end": self.warm_pool().end}
        while self.queue.waiting:
            flow, subject = self.queue.waiting.pop(0)
            await self.through(known[flow], subject, deaths())


@contextmanager
def virtual_time(world: LyingWorld, short_seconds: float) -> Iterator[None]:
    """Every flow's `until` is the world's."""
    real, probe, short = watch.until, first_words.PROBE_SECONDS_MAX, watch.SHORT_SECONDS_MAX
    flows = [module for name, module in list(sys.modules.items()) if name.startswith("tinyfat.flows.")]
    waiting = [module for module in flows if getattr(module, "until", None) is real]
    for module in waiting:
        module.until = world.until  # type: ignore[attr-defined]
    first_words.PROBE_SECONDS_MAX = PROBE_SECONDS_MAX
    watch.SHORT_SECONDS_MAX = short_seconds
    try:
        yield
    finally:
        for module in waiting:
            module.until = real  # type: ignore[attr-defined]
        first_words.PROBE_SECONDS_MAX = probe
        watch.SHORT_SECONDS_MAX = short


@asynccontextmanager
async def lying_world(
    database: Database, seed: int, short_seconds: float = SHORT_SECONDS_MAX, listing_seconds: float = 0.0
) -> AsyncIterator[LyingWorld]:
    """No lies yet: `world.provider.cloud.lies` takes them. `listing_seconds`: so long a list stands for everybody."""
    cloud = Cloud(options=Options(action_seconds=ACTION_SECONDS), lies=Lies((), seed))
    standin = Standin(cloud, TOKEN, calls=deque())
    async with served(hetzner_app(standin)) as url:
        with tempfile.TemporaryDirectory(prefix="tinyfat-lying-") as folder:
            world = LyingWorld(
                database, Provider(cloud, standin, url), random.Random(seed), Path(folder), listing_seconds
            )
            listening = asyncio.create_task(world.signals.run())
            await world.listening.wait()
            try:
                connection = world.opened[0]
                await connection.call("make the zone", lambda api: api.zones.create(name=DOMAIN, mode="primary"))
                await world.pass_time(60.0)
                with virtual_time(world, short_seconds):
                    yield world
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                for one in world.opened:
                    one.close()
