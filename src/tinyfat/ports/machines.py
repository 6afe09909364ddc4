"""What we ask of whoever runs machines.

MachinesError
├── MachineRefused      the order can never succeed as it is
│   └── MachinesFull    no room where it was asked for; elsewhere, or later, there may be
└── MachinesUnreachable the provider did not answer, is busy or over its limit; nothing is known: ask again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tinyfat.domain.machines import Address, Billed, Image, MachineOrder, MachineSeen


class MachinesError(Exception):
    """The provider of machines failed."""


class MachineRefused(MachinesError):
    """The provider refused the order; asking again will not help."""


class MachinesFull(MachineRefused):
    """The provider has no room in this location. An address that no machine had yet may be released and made anew: it
    then comes from a location that is not known to be full."""

    def __init__(self, words: str, again_seconds: float | None = None) -> None:
        """`again_seconds`: nothing was asked, for others were told lately that there is no room; then it is asked
        again. None: it was asked."""
        super().__init__(words)
        self.again_seconds = again_seconds


class MachinesUnreachable(MachinesError):
    """The provider did not answer; whether the order was carried out is unknown."""


class Machines(Protocol):
    """Drivers return at once and 'not yet' is a value: the flow waits and looks again, never the driver.

    Every method may be called twice with the same id and then has the effect of one call.
    """

    @property
    def month_price(self) -> int:
        """Nano-dollars that one machine costs the operator in a month."""

    async def start(self, order: MachineOrder) -> None:
        """Make the machine, or start it again where it is stopped."""

    async def look(self, machine_id: str) -> MachineSeen:
        """What is really there. Never says GONE or STOPPED while anything of it runs."""

    async def stop(self, machine_id: str) -> None:
        """Ask it to stop. Only `look` tells whether it did."""

    async def delete(self, machine_id: str) -> None:
        """Ask for its end, data included. Only `look` tells whether it is gone."""


@runtime_checkable
class Servers(Machines, Protocol):
    """The ability of drivers whose machines are whole servers: addresses of their own, images, a bill.

    `MachineOrder.server` is never None for them. As above, every call may be made twice, and 'not yet' is a value.
    """

    async def room(self, location: str, size: str) -> None:
        """Before anything is ordered there: raises MachinesFull where it is known that there is no room. Asks for
        nothing, and promises nothing."""

    async def address(self, address_id: str, location: str = "") -> Address:
        """Make the address, or find it; where nothing can be said yet its ipv4 is "". Raises MachinesFull where no
        location has one left."""

    async def attach(self, address_id: str, machine_id: str) -> bool:
        """Give the address to this machine, whoever had it. True once the machine runs and has it. Where a provider
        can do so only with machines that are off, both are stopped and this one started again: call until True."""

    async def release(self, address_id: str) -> bool:
        """Let the address go. True once it is seen to be gone."""

    async def opens(self, machine_id: str, ssh_networks: Sequence[str], published: bool) -> bool:
        """What the provider itself lets through to the machine: SSH from these networks and, where something is
        published, HTTPS; pings, and nothing else. True once that is so; always, where the provider stands before
        nothing. Raises MachineRefused where there is no such machine."""

    async def billed(self) -> Sequence[Billed]:
        """Everything on the provider's list, what is not ours included."""

    async def remove(self, billed: Billed) -> None:
        """Ask for the end of one of them. Only `billed` tells whether it is gone. Raises MachineRefused for what is not
        ours."""

    async def snapshot(self, machine_id: str, image: str) -> bool:
        """Make an image of a stopped machine's disk. True once it can be used."""

    async def images(self) -> Sequence[Image]:
        """Ours alone, the newest first."""

    async def remove_image(self, image: str) -> bool:
        """True once it is seen to be gone."""

    async def monthly_nanodollars(self, machine_id: str) -> int:
        """What this machine costs a month with its address, by the provider's own price list."""
