"""What the API says of servers and addresses, as values: the client's own objects may ask the API at any attribute."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hcloud.primary_ips import BoundPrimaryIP
from hcloud.servers import BoundServer, PublicNetworkFirewall

from tinyfat.domain.machines import MachineSeen, MachineState

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# `status` of a server (docs.hetzner.cloud, "Servers"). What is in between is not known to run, nor to have ended.
_STATES = {
    "running": MachineState.RUNNING,
    "stopping": MachineState.RUNNING,
    "off": MachineState.STOPPED,
}


@dataclass(frozen=True, slots=True)
class Server:
    id: int
    name: str
    status: str
    labels: Mapping[str, str]
    created: datetime
    location: str
    type: str
    ipv4: str
    ipv6: str  # one address
    ip_ids: tuple[int, ...]  # of its Primary IPs
    firewalls: frozenset[int]
    firewalls_applied: bool  # each of them, by now
    volumes: tuple[int, ...]

    def seen(self, detail: str = "") -> MachineSeen:
        state = _STATES.get(self.status, MachineState.UNKNOWN)
        words = f"server {self.name} ({self.id}) in {self.location} is {self.status}"
        return MachineSeen(state, f"{words}: {detail}" if detail else words, self.ipv4, self.ipv6)


@dataclass(frozen=True, slots=True)
class PrimaryIp:
    id: int
    name: str
    kind: str  # "ipv4", "ipv6"
    ip: str  # one address
    labels: Mapping[str, str]
    created: datetime
    location: str
    server_id: int | None  # who has it
    auto_delete: bool  # goes with its server
    reverse: Mapping[str, str]  # address -> name


def the_id(given: int | None) -> int:
    """The client's types have it optional; what the API answers with always has one."""
    assert given is not None
    return given


def server_of(bound: BoundServer) -> Server:
    net = bound.public_net
    return Server(
        the_id(bound.id),
        bound.name or "",
        bound.status or "unknown",
        dict(bound.labels or {}),
        bound.created or EPOCH,
        (bound.location.name or "") if bound.location else "",
        (bound.server_type.name or "") if bound.server_type else "",
        str(net.ipv4.ip) if net and net.ipv4 else "",
        first_address(str(net.ipv6.ip)) if net and net.ipv6 else "",
        tuple(ip.id for ip in (net.primary_ipv4, net.primary_ipv6) if ip and ip.id) if net else (),
        frozenset(one.firewall.id for one in (net.firewalls or []) if one.firewall.id) if net else frozenset(),
        all(one.status == PublicNetworkFirewall.STATUS_APPLIED for one in net.firewalls or []) if net else True,
        tuple(volume.id for volume in bound.volumes or [] if volume.id),
    )


def primary_ip_of(bound: BoundPrimaryIP) -> PrimaryIp:
    kind = bound.type or ""
    return PrimaryIp(
        the_id(bound.id),
        bound.name or "",
        kind,
        first_address(bound.ip or "") if kind == "ipv6" else bound.ip or "",
        dict(bound.labels or {}),
        bound.created or EPOCH,
        (bound.location.name or "") if bound.location else "",
        bound.assignee_id,
        bool(bound.auto_delete),
        {str(one["ip"]): str(one["dns_ptr"]) for one in bound.dns_ptr or []},
    )


def first_address(network: str) -> str:
    """2001:db8::/64 is a server's network; its image sets up the address ::1 in it (docs.hetzner.com, "IPv6")."""
    try:
        found = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return network
    return str(found[1] if found.num_addresses > 1 else found[0])
