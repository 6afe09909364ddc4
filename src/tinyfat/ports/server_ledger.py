"""What the flows of servers ask of the ledger: addresses, names, keys, who logged in, moves, alarms.

Errors are those of ports/ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tinyfat.domain.machines import Address, Machine, PoolState


@dataclass(frozen=True, slots=True)
class NewServer:
    """A server to write down before it is ordered."""

    id: str
    agent_id: str  # "": for the warm pool
    kind: str
    runtime: str
    hostname: str
    token_hash: bytes  # of the link's token
    enrol_token_hash: bytes
    enrol_seconds: float  # for so long the enrolment token opens, from now
    address_id: str
    image: str = ""
    size: str = ""
    location: str = ""
    generation: int = 1
    current: bool = True


@dataclass(frozen=True, slots=True)
class Wish:
    """What a machine of the pool must be like; "": anything."""

    kind: str
    runtime: str
    location: str = ""
    image: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """An address we wrote down. `agent_id` "": it waits with its machine in the warm pool."""

    id: str
    agent_id: str
    kind: str
    passing: bool
    ipv4: str
    ipv6: str
    location: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KnownName:
    name: str
    agent_id: str
    agent_gone: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """A key the agent's owner logs in with."""

    fingerprint: str
    public_key: str  # type and base64
    name: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class SshSession:
    serial: int  # the certificate's
    agent_name: str
    address: str
    who: str
    why: str
    command: str
    fingerprint: str
    started_at: datetime
    valid_until: datetime
    ended_at: datetime | None
    exit_code: int | None


class MovePhase(StrEnum):
    ASKED = "asked"  # the old box is to hand its state over
    KEPT = "kept"  # it is here, whole
    RESTORED = "restored"  # the new box has it, whole, and its runtime runs on it
    FETCHED = "fetched"  # of an export: the operator has it, or wants it no more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StateMove:
    id: str
    agent_id: str
    from_machine: str
    to_machine: str  # "": an export, which goes to the operator
    phase: MovePhase
    sha256: str
    bytes: int
    detail: str
    asked_at: datetime
    kept_at: datetime | None = None


class AlarmKind(StrEnum):
    ORPHAN = "orphan"  # the provider bills it, and we do not know it
    GHOST = "ghost"  # it should be there, and the provider does not have it
    STRAY_NAME = "stray-name"  # a name of ours in the DNS without an agent
    STUCK = "stuck"  # told to end, or to run, and the provider does otherwise
    POOL = "pool"  # a machine for the warm pool could not be made
    SITE = "site"  # what an agent publishes is not seen, or its certificate is not renewed
    DISK = "disk"  # a disk that we write to has little room left
    UNREAD = "unread"  # what a provider has could not be read for a while: nothing is compared


@dataclass(frozen=True, slots=True)
class Alarm:
    kind: AlarmKind
    subject: str  # begins with its scope, e.g. "hetzner server 4711"
    detail: str
    agent_id: str = ""
    since: datetime | None = None
    seen_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ImageMachine:
    """A provider lists it, and it is there to make or to try an image: nobody's, and not for long."""

    kind: str
    provider_id: str
    name: str  # the provider's
    image: str
    since: datetime  # the provider made it
    monthly_nanodollars: int


@dataclass(frozen=True, slots=True)
class GoneMachine:
    """What it has cost stays in its month."""

    agent_id: str  # "": it waited in the warm pool
    monthly_nanodollars: int
    since: datetime
    ended_at: datetime


class ServerRecords(Protocol):
    async def write_down(self, server: NewServer) -> Machine:
        """Twice with the same id: once, and the first stands."""

    async def all(self, kind: str) -> list[Machine]: ...
    async def ordered(self, machine_id: str) -> None: ...
    async def placed(self, machine_id: str, ipv4: str, ipv6: str, location: str) -> None: ...
    async def priced(self, machine_id: str, monthly_nanodollars: int) -> None: ...

    async def claim(self, agent_id: str, wish: Wish, hostname: str, seen_seconds: float) -> Machine | None:
        """A ready machine of the pool becomes this agent's, its address with it, in one statement. None: none is
        ready. Asked again, the same one."""

    async def fill_pool(self, wish: Wish, wanted: int, booting_max: int, new: Callable[[], NewServer]) -> list[Machine]:
        """Write down as many as are missing for `wanted` to wait, with no more than `booting_max` under way. Of several
        who ask at the same moment, one counts and writes at a time."""

    async def waiting(self, kind: str) -> list[Machine]:
        """Those of the pool, whatever they are there."""

    async def pool_becomes(self, machine_id: str, state: PoolState) -> bool:
        """False where it is no longer in the pool: it was claimed meanwhile."""

    async def identity_changed(self, machine_id: str) -> None:
        """Its serial goes up, and whoever holds its link tells its box."""

    async def publish(self, agent_id: str, published: bool) -> None:
        """Its site is to be shown, or not: the serials of all its machines go up, and their boxes are told."""

    async def switch(self, agent_id: str, machine_id: str) -> None:
        """From now on this machine of the agent's is the one that answers."""

    async def addressed(self, machine_id: str, address_id: str) -> None:
        """From now on this is its address."""

    async def begin_replacing(self, agent_id: str, generation: int) -> bool:
        """Of two who ask at the same moment, one is told yes: the number of the machine to come is its alone."""

    async def hold_turns(self, agent_id: str) -> None:
        """Turns wait: none is offered to a box until `go_on`."""

    async def go_on(self, agent_id: str) -> None:
        """What was not answered is offered to the machine that is current now, and its deadline is later by as long as
        it was held."""

    async def price_of(self, agent_id: str) -> int:
        """Nano-dollars a month of all machines the agent has now."""

    async def gone(self, first: date) -> list[GoneMachine]:
        """The machines that cost something and ended on that day (UTC) or later."""


class Addresses(Protocol):
    async def write_down(self, address_id: str, agent_id: str, kind: str, passing: bool) -> None: ...
    async def known(self, address: Address) -> None: ...
    async def of_agent(self, agent_id: str) -> list[KnownAddress]: ...
    async def all(self, kind: str) -> list[KnownAddress]: ...
    async def forget(self, address_id: str) -> None: ...


class Names(Protocol):
    async def write_down(self, name: str, agent_id: str) -> bool:
        """False where another agent's name of this kind is not yet seen to be gone."""

    async def known(self, name: str) -> bool:
        """Some agent's, by our own books: what the DNS has there is ours."""

    async def of_agent(self, agent_id: str) -> list[str]: ...
    async def all(self) -> list[KnownName]: ...
    async def forget(self, name: str, agent_id: str) -> None: ...


class AgentKeys(Protocol):
    async def add(self, agent_id: str, fingerprint: str, public_key: str, name: str) -> OwnerKey: ...
    async def remove(self, agent_id: str, key: str) -> OwnerKey:
        """By its fingerprint or name. Raises NotFound, Conflict where several fit."""

    async def list(self, agent_id: str) -> list[OwnerKey]: ...


class SshSessions(Protocol):
    async def begin(
        self, agent_id: str, machine_id: str, address: str, who: str, why: str, command: str, fingerprint: str,
        seconds: float,
    ) -> SshSession: ...  # fmt: skip
    async def end(self, serial: int, exit_code: int) -> None: ...
    async def list(self, agent_id: str | None, limit: int) -> list[SshSession]: ...


class StateMoves(Protocol):
    """Whatever changes a phase tells both boxes, by whoever holds their links."""

    async def ask(self, move_id: str, agent_id: str, from_machine: str, to_machine: str) -> None:
        """Twice with the same id: once; and both boxes are told again. `to_machine` "": an export."""

    async def get(self, move_id: str) -> StateMove | None: ...
    async def latest_of(self, machine_id: str) -> StateMove | None:
        """The newest in which this machine has a part; one that takes its state to another machine comes first."""

    async def exports(self) -> list[StateMove]:
        """Those under way: asked or kept."""

    async def kept(self, move_id: str, sha256: str, size: int) -> None: ...
    async def restored(self, move_id: str) -> None: ...
    async def fetched(self, move_id: str) -> None: ...
    async def failed(self, move_id: str, detail: str) -> None:
        """Whatever it was: from now on the old machine goes on by itself."""


class MoveFiles(Protocol):
    """Where a state is while it is under way: on the disk of the process that boxes call."""

    def file(self, move_id: str) -> Path:
        """Raises ValueError for what is no id."""

    def room(self) -> int:
        """Free bytes."""

    async def ids(self) -> list[str]:
        """Of the moves that have a file here, or a part of one."""

    async def remove(self, move_id: str) -> None: ...


class ImageMachines(Protocol):
    async def now(self, kind: str, seen: Sequence[ImageMachine]) -> None:
        """These are those of this kind now, and no others."""

    async def all(self) -> list[ImageMachine]:
        """The oldest first."""


class Alarms(Protocol):
    async def now(self, scope: str, seen: Sequence[Alarm]) -> list[Alarm]:
        """These are the alarms of this scope now; its others have ended. Returns those that are new."""

    async def open(self, scope: str = "") -> list[Alarm]:
        """`scope` "": of every one."""

    async def end_stale(self, kind: AlarmKind, seconds: float) -> None:
        """End those of this kind that nobody has seen for so long: who saw them is gone."""
