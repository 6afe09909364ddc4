"""What a maker of machines on this host can do. Drivers and the stand-in's backends are thin over it.

MachineHostError
├── HostRefused   the order can never succeed as it is
│   └── HostFull  nothing of what it needs is left on this host
└── HostFailed    this host did not manage it, e.g. a program is missing or did not end in time: it may be asked again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tinyfat.domain.machines import MachineState


class MachineHostError(Exception):
    """This host did not do what was asked."""


class HostRefused(MachineHostError):
    """The order can never succeed as it is: asking again will not help."""


class HostFull(HostRefused):
    """Nothing of what it needs is left on this host."""


class HostFailed(MachineHostError):
    """This host did not manage it; what was done of it is found again by looking."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a machine is reached from this host."""

    ipv4: str
    ipv6: str = ""  # either may be "": it has none
    leased_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class HostOrder:
    """What a machine is made from. The name is the caller's: [a-z0-9-], at most NAME_CHARS_MAX characters."""

    name: str
    image: str  # name of one of `images`
    user_data: str  # of cloud-init, as any provider would hand it over
    hostname: str
    memory_bytes: int
    address: HostAddress | None = None  # one that `lease` gave; None: one that goes with the machine
    labels: Mapping[str, str] = field(default_factory=dict)  # the caller's notes, kept beside the machine
    published: bool = True  # see `let_in`


@dataclass(frozen=True, slots=True)
class HostMachine:
    """A machine as it is seen now. Never GONE or STOPPED while any process of it lives."""

    name: str
    state: MachineState
    detail: str = ""  # for a person: which process runs on
    address: HostAddress | None = None
    image: str = ""
    memory_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class HostImage:
    name: str
    created_at: datetime
    bytes: int


NAME_CHARS_MAX = 63


class MachineHost(Protocol):
    """Everything is on disk under deterministic names: another process finds all of it again, after a crash too.

    Every method may be called twice and then has the effect of one call. The long work is done in threads and child
    processes. Raises MachineHostError.
    """

    @property
    def gateway(self) -> HostAddress:
        """This host as its machines reach it: where a control plane on this host is dialled."""

    async def open(self) -> None:
        """Make what all machines share, e.g. their network, so that something can listen on `gateway`."""

    async def close(self) -> None:
        """Take it away again where no machine is left; the addresses stay leased."""

    async def lease(self, name: str) -> HostAddress:
        """An address kept under this name until `release`. Raises HostFull where none is left."""

    async def release(self, name: str) -> None: ...

    async def leases(self) -> Mapping[str, HostAddress]: ...

    async def create(self, order: HostOrder) -> None:
        """Make the machine and start it; where one of this name exists nothing is done, whatever it is made of."""

    async def start(self, name: str) -> None:
        """Start it again where it is stopped. Raises HostRefused where there is none."""

    async def stop(self, name: str, force: bool = False) -> None:
        """Ask its system to end (like the power button), or cut the power. Only `look` tells whether it did."""

    async def destroy(self, name: str) -> None:
        """Cut the power and remove all of it, its own address too. Only `look` tells whether it is gone."""

    async def look(self, name: str) -> HostMachine: ...

    async def machines(self) -> Sequence[HostMachine]: ...

    async def let_in(self, name: str, published: bool) -> None:
        """What this host itself puts between the world and the machine lets HTTPS through, or not; it may run. Raises
        HostRefused where there is none."""

    async def set_address(self, name: str, address: HostAddress | None) -> None:
        """Give the machine this address from its next start on; None: one of its own. Raises HostRefused while it runs,
        unless the kind of machine can take it while running (see `moves_addresses_live`)."""

    @property
    def moves_addresses_live(self) -> bool: ...

    async def snapshot(self, name: str, image: str) -> None:
        """Make an image of a stopped machine's disk. Raises HostRefused while it runs."""

    async def images(self) -> Sequence[HostImage]:
        """The newest first."""

    async def remove_image(self, name: str) -> None:
        """Raises HostRefused while a machine or another image is made of it."""
