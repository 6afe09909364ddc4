"""The control plane's flows on a real Postgres, with machines, a box and a smarthost that are objects here."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from tinyfat.domain.agents import ANYWHERE, Agent, AgentState, Place, RuntimeKind
from tinyfat.domain.failure_kinds import FailureId
from tinyfat.domain.failures import Failure
from tinyfat.domain.link import RuntimeState, Status
from tinyfat.domain.mail.judgement import RateCaps
from tinyfat.domain.turns import Turn, TurnOutcome, TurnResult
from tinyfat.drivers.dns.memory import MemoryDns
from tinyfat.drivers.machines.memory import MemoryMachines
from tinyfat.drivers.machines.memory_servers import MemoryServers
from tinyfat.drivers.mail.memory import MemoryMailOut
from tinyfat.flows.addressing import Addressing
from tinyfat.flows.delivery import Delivery
from tinyfat.flows.first_words import FirstWords
from tinyfat.flows.intake import MailIntake
from tinyfat.flows.machine_kinds import MachineKinds
from tinyfat.flows.mail_turn import MailTurn
from tinyfat.flows.orders import Orders, ServerTerms
from tinyfat.flows.owner_mail import OwnerMail
from tinyfat.flows.pool import Pool, PoolTerms
from tinyfat.flows.provision import Provision
from tinyfat.flows.reconcile import Reconcile
from tinyfat.flows.replace import Replace
from tinyfat.flows.retire import Retire
from tinyfat.flows.server_making import ServerMaking
from tinyfat.flows.watch import MachineRuns
from tinyfat.flows.welcome import Welcome
from tinyfat.ports.mail import Authentication, Envelope
from tinyfat.store.addresses import AddressStore, NameStore
from tinyfat.store.agents import AgentStore
from tinyfat.store.alarms import AlarmStore
from tinyfat.store.database import Database
from tinyfat.store.deliveries import DeliveryStore
from tinyfat.store.ended_keys import EndedKeys
from tinyfat.store.image_machines import ImageMachineStore
from tinyfat.store.machines import MachineStore
from tinyfat.store.mail import MailStore
from tinyfat.store.notices import NoticeStore
from tinyfat.store.servers import ServerStore
from tinyfat.store.signals import Signals
from tinyfat.store.ssh_access import AgentKeyStore
from tinyfat.store.state_moves import StateMoveStore
from tinyfat.store.turns import OFFERS, TurnStore

T = TypeVar("T")
DOMAIN = "tinyfat.localhost"
OWNER = "owner@example.org"
HOST = "host-1"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1vQnH3qqBJgH7k6ZyW4n3Vnh1fN7hXkzq2bX0cJq5L"
TERMS = ServerTerms(
    domain=DOMAIN,
    control_url="https://192.0.2.1:8443",
    control_ca="",
    link_url="wss://192.0.2.1:8443/box/link",
    box_sha256="0" * 64,
    ssh_ca=HOST_KEY,
)
LOOPBACK = Envelope("127.0.0.1", "peer.example", OWNER)


class PlainSteps:
    """Each step is done, and that is all: a process that never dies."""

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    async def again(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await work()


class Flows:
    """Implements engine FlowStatus: a flow begun twice with one id runs once."""

    def __init__(self) -> None:
        self.known: dict[str, Callable[..., Awaitable[None]]] = {}
        self.begun: dict[str, asyncio.Task[None]] = {}

    async def start(self, flow: str, flow_id: str, subject: str) -> None:
        if flow_id not in self.begun:
            self.begun[flow_id] = asyncio.create_task(self._run(flow, subject))

    async def broken(self, flow_id: str) -> bool:
        task = self.begun.get(flow_id)
        return task is not None and task.done() and task.exception() is not None

    async def _run(self, flow: str, subject: str) -> None:
        await self.known[flow](PlainSteps(), subject)

    async def all_ended(self) -> None:
        """Those begun meanwhile too. Raises what a flow raised."""
        while unfinished := [task for task in self.begun.values() if not task.done()]:
            await asyncio.wait(unfinished)
        for task in self.begun.values():
            task.result()


class Box:
    """Answers offers as a box and its runtime would. `asked`: the turns it began, in order."""

    def __init__(self, turns: TurnStore) -> None:
        self._turns = turns
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: set[str] = set()
        self.asked: list[Turn] = []
        self.running: Counter[str] = Counter()  # by session
        self.most_at_once = 0  # of one session
        self.silent = False
        self.outcome = TurnOutcome.ANSWERED

    def offered(self, payload: str) -> None:
        if not self.silent:
            machine_id, _, turn_id = payload.partition(" ")
            task = asyncio.create_task(self._answer(machine_id, turn_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, machine_id: str, turn_id: str) -> None:
        turn = await self._turns.for_box(turn_id, machine_id)
        if turn is None or turn.id in self._kept:
            return
        self._kept.add(turn.id)
        await self._turns.received(turn.id, machine_id)
        self.asked.append(turn)
        self.running[turn.session] += 1
        self.most_at_once = max(self.most_at_once, self.running[turn.session])
        await asyncio.sleep(0)
        self.running[turn.session] -= 1
        failed = self.outcome is not TurnOutcome.ANSWERED
        named = FailureId.SILENT if self.outcome is TurnOutcome.SILENT else FailureId.MODEL_FAILED
        result = TurnResult(
            self.outcome,
            text="" if failed else f"You wrote: {turn.text}",
            failure=Failure(named) if failed else None,
            detail="the model refused" if failed else "",
        )
        await self._turns.answered(turn.id, machine_id, result)


class DoNotProve:
    async def check(self, raw: bytes, envelope: Envelope, from_address: str) -> Authentication:
        return Authentication(False, "nobody was asked")


class NoFiles:
    """Implements ports/server_ledger MoveFiles. `removed`: which moves were over."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    def file(self, move_id: str) -> Path:
        raise AssertionError("no bytes pass here")

    def room(self) -> int:
        return 0

    async def ids(self) -> list[str]:
        return []

    async def remove(self, move_id: str) -> None:
        self.removed.append(move_id)


class SmallWorld:
    def __init__(self, database: Database, caps: RateCaps, deadline_seconds: float) -> None:
        self.database = database
        self.signals = Signals(database.url)
        self.agents = AgentStore(database)
        self.records = MachineStore(database, self.signals)
        self.turns = TurnStore(database, self.signals)
        self.ledger = MailStore(database, caps)
        self.deliveries = DeliveryStore(database, HOST)
        self.machines = MemoryMachines()
        self.cloud = MemoryServers()
        self.dns = MemoryDns(DOMAIN)
        self.kinds = MachineKinds({"process": self.machines, "cloud": self.cloud})
        self.servers = ServerStore(database)
        self.addresses = AddressStore(database)
        self.names = NameStore(database)
        self.keys = AgentKeyStore(database)
        self.runs = MachineRuns(self.kinds, self.records)
        self.orders = Orders(b"secret", "ws://127.0.0.1:1/box/link", TERMS)
        self.addressing = Addressing(DOMAIN, self.kinds, self.addresses, self.names, self.dns)
        self.out = MemoryMailOut()
        self.delivery = Delivery(DOMAIN, self.deliveries, self.out, b"bounce secret")
        self.flows = Flows()
        self.mail_turn = MailTurn(
            DOMAIN, deadline_seconds, self.agents, self.turns, self.ledger, self.delivery, self.flows
        )
        self.flows.known["mail_turn"] = self.mail_turn.run
        making = ServerMaking(
            self.agents, self.kinds, self.records, self.servers, self.keys, self.orders, self.addressing
        )
        self.owner_mail = OwnerMail(DOMAIN, NoticeStore(database), self.delivery)
        welcome = Welcome(self.owner_mail, self.keys, self.addressing, lambda agent_id: HOST_KEY)
        self.provision = Provision(self.agents, making, self.records, self.turns, self.orders, self.runs, welcome, HOST)
        self.words = FirstWords(self.records, self.turns)
        self.alarms = AlarmStore(database)
        self.image_machines = ImageMachineStore(database)
        self.clock_ahead = timedelta(0)
        self.reconcile = Reconcile(
            self.agents,
            self.kinds,
            self.records,
            self.servers,
            self.addresses,
            self.names,
            self.addressing,
            making,
            self.alarms,
            self.image_machines,
            self.clock,
            ["cloud"],
        )
        self.making = making
        self.moves = StateMoveStore(database)
        self.move_files = NoFiles()
        self.replace = Replace(
            self.agents,
            self.kinds,
            self.records,
            self.servers,
            self.moves,
            self.move_files,
            self.orders,
            making,
            self.addressing,
            self.runs,
            self.words,
            self.owner_mail,
            self.clock,
        )
        self.flows.known["pool"] = self.pool().run
        self.flows.known["pool_end"] = self.pool().end
        self.retire = Retire(self.agents, EndedKeys(database), self.kinds, self.runs, self.addressing)
        self.box = Box(self.turns)
        self.listening = asyncio.Event()
        self.signals.on(OFFERS, self.box.offered, self.listening.set)
        networks = [ipaddress.ip_network("127.0.0.0/8")]
        self.intake = MailIntake(
            DOMAIN, networks, self.agents, self.ledger, DoNotProve(), self.mail_turn.start, b"bounce secret"
        )

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.clock_ahead

    def pool(self, **wanted: int) -> Pool:
        """`fsn1=2`: two wait there."""
        return Pool(
            PoolTerms("cloud", "echo", tuple(wanted.items())),
            self.records,
            self.servers,
            self.orders,
            self.making,
            self.runs,
            self.addressing,
            self.words,
            self.alarms,
            self.flows,
            self.clock,
        )

    async def new_agent(self, name: str = "", kind: str = "process", place: Place = ANYWHERE) -> Agent:
        """As if it had just been asked for."""
        return await self.agents.create(name or f"a{uuid.uuid4().hex[:12]}", OWNER, RuntimeKind.ECHO, kind, place)

    async def ready_agent(self, name: str = "") -> Agent:
        """With a machine that runs and a box that answers."""
        agent = await self.new_agent(name)
        order = self.orders.of(agent)
        await self.records.create(order.id, agent.id, "process", HOST, self.orders.token_hash(order.id))
        await self.machines.start(order)
        await self.agents.become(agent.id, AgentState.READY)
        return await self.agents.get(agent.id)

    async def box_says(self, agent: Agent, state: RuntimeState, detail: str = "") -> None:
        await self.records.heard(self.orders.of(agent).id, Status(state, detail))

    async def send(self, agent: Agent, raw: bytes, envelope: Envelope = LOOPBACK) -> str:
        return await self.intake.accept(envelope, [f"{agent.name}@{DOMAIN}"], raw)

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchall()


@asynccontextmanager
async def small_world(
    database: Database, caps: RateCaps | None = None, deadline_seconds: float = 30.0
) -> AsyncIterator[SmallWorld]:
    world = SmallWorld(database, caps or RateCaps(10_000, 10_000), deadline_seconds)
    running = asyncio.create_task(world.signals.run())
    await world.listening.wait()  # an offer made before would be found by a sweep, which these tests do not run
    try:
        yield world
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def mail(text: str = "Hello.", *, sender: str = OWNER, message_id: str = "", references: str = "") -> bytes:
    lines = [
        f"From: {sender}",
        "Subject: Boats",
        f"Message-ID: {message_id or f'<{uuid.uuid4().hex}@example.org>'}",
        *([f"References: {references}"] if references else []),
        "",
        text,
        "",
    ]
    return "\r\n".join(lines).encode()
