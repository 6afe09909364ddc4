"""A network of this host for its containers: one bridge for each folder of machines, its subnet unlike any other's.

Nothing leads out of it: machines reach this host and each other, and this host reaches them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfat.machine_hosts.host_lock import locked
from tinyfat.machine_hosts.machine_host import HostAddress, HostRefused
from tinyfat.machine_hosts.programs import run
from tinyfat.machine_hosts.records import write_private

NETWORK_V4 = ipaddress.ip_network("10.213.0.0/16")  # each installation has a /24 of it
NETWORK_V6 = ipaddress.ip_network("fd54:6661:7400::/48")  # and a /64 of it; "Tfat" in ASCII (RFC 4193)
SUBNETS = 256
MACHINES_MAX = 250
INTERFACE = "host0"  # inside, as systemd-nspawn names it
_LOCK = Path("/run/lock/tinyfat-networks.lock")


@dataclass(frozen=True, slots=True)
class Subnet:
    number: int

    @property
    def gateway(self) -> HostAddress:
        return self.address(1)

    def address(self, host: int) -> HostAddress:
        v4 = ipaddress.ip_address(int(NETWORK_V4.network_address) + self.number * 256 + host)
        v6 = ipaddress.ip_address(int(NETWORK_V6.network_address) + (self.number << 64) + host)
        return HostAddress(str(v4), str(v6))

    @property
    def pool(self) -> Sequence[HostAddress]:
        return [self.address(host) for host in range(2, 2 + MACHINES_MAX)]

    def interface_file(self, address: HostAddress) -> str:
        """systemd.network(5) for a machine with this address."""
        lines = [
            "[Match]",
            f"Name={INTERFACE}",
            "",
            "[Network]",
            "DHCP=no",
            "LinkLocalAddressing=no",
            "IPv6AcceptRA=no",
        ]
        if address.ipv4:
            lines += [f"Gateway={self.gateway.ipv4}", f"Address={address.ipv4}/24"]
        if address.ipv6:
            lines += [f"Gateway={self.gateway.ipv6}", "", "[Address]", f"Address={address.ipv6}/64"]
            lines += ["DuplicateAddressDetection=none"]
        return "".join(f"{line}\n" for line in lines)


class Bridge:
    """`folder`: whose machines they are. It names the bridge, and remembers the subnet."""

    def __init__(self, folder: Path) -> None:
        self.name = f"tinyfat-{hashlib.sha256(str(folder).encode()).hexdigest()[:7]}"  # 15 characters at most
        self._file = folder / "network.json"

    async def subnet(self) -> Subnet:
        """The same one always. Raises HostRefused where this host has none left."""
        async with locked(_LOCK):
            if self._file.is_file():
                return Subnet(int(json.loads(self._file.read_text())["subnet"]))
            taken = await self._taken()
            first = int(hashlib.sha256(str(self._file).encode()).hexdigest()[:4], 16)
            numbers = ((first + step) % SUBNETS for step in range(SUBNETS))
            number = next((number for number in numbers if number not in taken), None)
            if number is None:
                raise HostRefused(f"All {SUBNETS} subnets of {NETWORK_V4} are in use on this host.")
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._file, json.dumps({"subnet": number}))
            return Subnet(number)

    async def up(self, movable: bool = False) -> Subnet:
        """`movable`: nobody has an address of it. Where another network of this host took it, there is another one
        then. Raises HostRefused otherwise."""
        subnet = await self.subnet()
        async with locked(_LOCK):
            owner = (await self._taken()).get(subnet.number)
            if owner is None:
                await self._make(subnet)
            if owner in (None, self.name):
                return subnet
            if not movable:
                raise HostRefused(f"{subnet.gateway.ipv4} is on {owner} by now: remove {owner} or {self._file}.")
            self._file.unlink(missing_ok=True)
        return await self.up()

    async def down(self) -> None:
        async with locked(_LOCK):
            if self.name in {link["ifname"] for link in await _links()}:
                await run(["ip", "link", "del", self.name])

    async def _make(self, subnet: Subnet) -> None:
        if self.name not in {link["ifname"] for link in await _links()}:
            await run(["ip", "link", "add", self.name, "type", "bridge"])
        await run(["ip", "link", "set", self.name, "up"])
        gateway = subnet.gateway
        await run(["ip", "addr", "replace", f"{gateway.ipv6}/64", "dev", self.name, "nodad"])
        await run(["ip", "addr", "replace", f"{gateway.ipv4}/24", "dev", self.name])

    async def _taken(self) -> dict[int, str]:
        """Subnets in use on this host, and by which interface."""
        found: dict[int, str] = {}
        for link in await _links():
            for info in link.get("addr_info", []):
                address = ipaddress.ip_address(info["local"])
                if address in NETWORK_V4:
                    found[(int(address) >> 8) & 0xFF] = str(link["ifname"])
        return found


async def _links() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await run(["ip", "-j", "addr", "show"]) or "[]")
    return found
