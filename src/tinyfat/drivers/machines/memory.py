"""Machines that are entries of a dictionary, for tests; and the lies a provider tells, to be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tinyfat.domain.machines import MachineOrder, MachineSeen, MachineState
from tinyfat.ports.machines import MachineRefused, MachinesUnreachable


@dataclass(slots=True)
class Lies:
    """Each number is used up: that many calls are lied to, and then the truth is told."""

    refuse_starts: int = 0  # the order is refused
    start_nothing: int = 0  # the order is acknowledged, and nothing comes of it
    stop_nothing: int = 0  # the stop is acknowledged, and it runs on
    delete_nothing: int = 0  # the delete is acknowledged, and it stays
    looks_late: int = 0  # for so many looks after an order nothing is known of it yet
    unreachable: int = 0  # the provider does not answer
    create_unheard: int = 0  # no answer to the order, which was carried out
    hangs: int = 0  # for so many looks it is neither running nor stopped: an action that does not end
    unreachable_share: float = 0.0  # of all calls get no answer, by `chance`
    ip_changes: int = 0  # started again, it has another address
    address_unheard: int = 0  # no answer, and the address was made
    attach_nothing: int = 0  # the address is said to have moved, and did not
    release_nothing: int = 0  # the address is said to be let go, and stays
    no_room_in: tuple[str, ...] = ()  # locations without a machine left
    chance: Random = field(default_factory=lambda: Random(0))  # noqa: S311  # no secret hangs on it

    def told(self, name: str) -> bool:
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


@dataclass(slots=True)
class _Entry:
    order: MachineOrder
    running: bool
    unseen_looks: int


@dataclass(slots=True)
class MemoryMachines:
    """Implements ports/machines Machines. `began` and `ended` are how often a machine really did."""

    lies: Lies = field(default_factory=Lies)
    month_price: int = 0  # nano-dollars
    began: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    _machines: dict[str, _Entry] = field(default_factory=dict)

    async def start(self, order: MachineOrder) -> None:
        """Raises MachineRefused, MachinesUnreachable."""
        self._reach()
        if self.lies.told("refuse_starts"):
            raise MachineRefused(f"The provider refused the order for {order.agent_name}: no room left.")
        if self.lies.told("start_nothing"):
            return
        known = self._machines.get(order.id)
        if known is not None and known.running and known.order == order:
            return
        if known is not None and known.running:
            self.ended.append(order.id)
        self._machines[order.id] = _Entry(order, True, self.lies.looks_late)
        self.began.append(order.id)
        if self.lies.told("create_unheard"):
            raise MachinesUnreachable("504 Gateway Timeout")

    async def look(self, machine_id: str) -> MachineSeen:
        self._reach()
        known = self._machines.get(machine_id)
        if known is None:
            return MachineSeen(MachineState.GONE)
        if known.unseen_looks:
            known.unseen_looks -= 1
            return MachineSeen(MachineState.UNKNOWN, "ordered, but the provider does not list it yet")
        if self.lies.told("hangs"):
            return MachineSeen(MachineState.UNKNOWN, "an action is still under way")
        return MachineSeen(MachineState.RUNNING, "runs") if known.running else MachineSeen(MachineState.STOPPED)

    async def stop(self, machine_id: str) -> None:
        self._reach()
        known = self._machines.get(machine_id)
        if known is None or not known.running or self.lies.told("stop_nothing"):
            return
        known.running = False
        self.ended.append(machine_id)

    async def delete(self, machine_id: str) -> None:
        self._reach()
        known = self._machines.get(machine_id)
        if known is None or self.lies.told("delete_nothing"):
            return
        if known.running:
            self.ended.append(machine_id)
        del self._machines[machine_id]

    def crash(self, machine_id: str) -> None:
        """It stops by itself."""
        self._machines[machine_id].running = False
        self.ended.append(machine_id)

    def running(self) -> list[str]:
        """The truth, for the test alone."""
        return [machine_id for machine_id, entry in self._machines.items() if entry.running]

    def _reach(self) -> None:
        lies = self.lies
        if lies.told("unreachable") or (lies.unreachable_share and lies.chance.random() < lies.unreachable_share):
            raise MachinesUnreachable("The provider of machines does not answer.")
