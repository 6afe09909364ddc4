"""A machine host whose machines are entries of a dictionary: the stand-in's truth where no real machine is wanted."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts.machine_host import (
    HostAddress,
    HostImage,
    HostMachine,
    HostOrder,
    HostRefused,
)

IPV4_NETWORK = ipaddress.IPv4Network("198.18.0.0/15")  # RFC 2544: for tests of networks; nobody's own
IPV6_NETWORK = ipaddress.IPv6Network("2001:db8::/32")  # RFC 3849: for documentation
IMAGE_BYTES = 2 * 1024**3


@dataclass(slots=True)
class MemoryHost:
    """Implements machine_hosts MachineHost. Addresses are counted up and never given twice."""

    now: Callable[[], float]
    machines_by_name: dict[str, HostMachine] = field(default_factory=dict)
    leased: dict[str, HostAddress] = field(default_factory=dict)
    snapshots: dict[str, HostImage] = field(default_factory=dict)
    addresses_given: int = 0

    @property
    def gateway(self) -> HostAddress:
        return HostAddress(str(IPV4_NETWORK[1]))

    @property
    def moves_addresses_live(self) -> bool:
        return False

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def lease(self, name: str) -> HostAddress:
        if name not in self.leased:
            self.leased[name] = self._next_address()
        return self.leased[name]

    async def release(self, name: str) -> None:
        self.leased.pop(name, None)

    async def leases(self) -> Mapping[str, HostAddress]:
        return dict(self.leased)

    async def create(self, order: HostOrder) -> None:
        if order.name in self.machines_by_name:
            return
        self.machines_by_name[order.name] = HostMachine(
            order.name,
            MachineState.RUNNING,
            address=order.address or self._next_address(),
            image=order.image,
            memory_bytes=order.memory_bytes,
            labels=dict(order.labels),
            created_at=datetime.fromtimestamp(self.now(), UTC),
        )

    async def start(self, name: str) -> None:
        self._change(name, state=MachineState.RUNNING)

    async def stop(self, name: str, force: bool = False) -> None:
        self._change(name, state=MachineState.STOPPED)

    async def destroy(self, name: str) -> None:
        self.machines_by_name.pop(name, None)

    async def look(self, name: str) -> HostMachine:
        return self.machines_by_name.get(name) or HostMachine(name, MachineState.GONE)

    async def machines(self) -> Sequence[HostMachine]:
        return list(self.machines_by_name.values())

    async def let_in(self, name: str, published: bool) -> None:
        """Nothing stands before a machine in memory."""
        self._machine(name)

    async def set_address(self, name: str, address: HostAddress | None) -> None:
        if (await self.look(name)).state is MachineState.RUNNING:
            raise HostRefused(f"Machine {name} runs; its address can change when it is stopped.")
        self._change(name, address=address or self._next_address())

    async def snapshot(self, name: str, image: str) -> None:
        self._machine(name)
        self.snapshots[image] = HostImage(image, datetime.fromtimestamp(self.now(), UTC), IMAGE_BYTES)

    async def images(self) -> Sequence[HostImage]:
        return sorted(self.snapshots.values(), key=lambda image: image.created_at, reverse=True)

    async def remove_image(self, name: str) -> None:
        self.snapshots.pop(name, None)

    def saved(self) -> dict[str, Any]:
        """All of it, as JSON can say it."""
        machines = [
            {"name": m.name, "running": m.state is MachineState.RUNNING, "image": m.image, "memory": m.memory_bytes}
            | {"ipv4": m.address.ipv4 if m.address else "", "ipv6": m.address.ipv6 if m.address else ""}
            for m in self.machines_by_name.values()
        ]
        leased = {name: [address.ipv4, address.ipv6] for name, address in self.leased.items()}
        return {"machines": machines, "leased": leased, "given": self.addresses_given, "images": list(self.snapshots)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        for one in saved["machines"]:
            state = MachineState.RUNNING if one["running"] else MachineState.STOPPED
            address = HostAddress(one["ipv4"], one["ipv6"])
            machine = HostMachine(one["name"], state, "", address, one["image"], one["memory"])
            self.machines_by_name[one["name"]] = machine
        self.leased = {name: HostAddress(*pair) for name, pair in saved["leased"].items()}
        self.addresses_given = saved["given"]
        now = datetime.fromtimestamp(self.now(), UTC)
        self.snapshots = {name: HostImage(name, now, IMAGE_BYTES) for name in saved["images"]}

    def _machine(self, name: str) -> HostMachine:
        if name not in self.machines_by_name:
            raise HostRefused(f"There is no machine {name}.")
        return self.machines_by_name[name]

    def _change(self, name: str, **fields: Any) -> None:
        self.machines_by_name[name] = replace(self._machine(name), **fields)

    def _next_address(self) -> HostAddress:
        self.addresses_given += 1
        number = self.addresses_given
        if number + 10 >= IPV4_NETWORK.num_addresses:
            raise HostRefused("No address is left.")
        prefix = int(IPV6_NETWORK.network_address) + (number << 64)
        return HostAddress(str(IPV4_NETWORK[number + 9]), str(ipaddress.IPv6Address(prefix + 1)))
