"""What we ask of whoever runs machines.

MachinesError
├── MachineRefused      the order can never succeed as it is
└── MachinesUnreachable the provider did not answer; nothing is known
"""

from __future__ import annotations

from typing import Protocol

from tinyfat.domain.machines import MachineOrder, MachineSeen


class MachinesError(Exception):
    """The provider of machines failed."""


class MachineRefused(MachinesError):
    """The provider refused the order; asking again will not help."""


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
