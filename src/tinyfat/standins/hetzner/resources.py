"""What a project holds. Fields are what JSON can say, so that all of it can be written down as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Labels = dict[str, str]


@dataclass(slots=True)
class Action:
    """A task under way. Its effect is named by its command; `lied`: it will say success and have done nothing."""

    id: int
    command: str
    resources: list[tuple[str, int]]  # type, id
    started: float  # Unix seconds
    due: float  # it ends then at the soonest, and not before its work has
    arguments: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    finished: float | None = None
    error: dict[str, str] | None = None
    hung_at: int | None = None  # per cent: it stays there for ever
    lied: bool = False
    settled: bool = False  # its effect, if any, has come


@dataclass(slots=True)
class Server:
    id: int
    name: str
    created: float
    type: str
    location: str
    image: int | None
    labels: Labels
    status: str = "initializing"
    ipv4: int | None = None  # Primary IPs
    ipv6: int | None = None
    firewalls: dict[int, str] = field(default_factory=dict)  # applied by hand: id, pending or applied
    volumes: list[int] = field(default_factory=list)
    delete_protected: bool = False
    user_data: str = ""


@dataclass(slots=True)
class PrimaryIp:
    id: int
    name: str
    created: float
    type: str  # ipv4, ipv6
    ip: str  # an address, or a /64
    location: str
    labels: Labels
    lease: str  # the machine host's name for it
    assignee: int | None = None
    auto_delete: bool = False
    delete_protected: bool = False
    pointers: dict[str, str] = field(default_factory=dict)  # reverse DNS, by address


@dataclass(slots=True)
class SshKey:
    id: int
    name: str
    created: float
    fingerprint: str
    public_key: str
    labels: Labels


@dataclass(slots=True)
class Firewall:
    id: int
    name: str
    created: float
    labels: Labels
    rules: list[dict[str, Any]]
    selectors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Volume:
    id: int
    name: str
    created: float
    size: int  # GB
    location: str
    labels: Labels
    format: str | None = None
    server: int | None = None
    status: str = "creating"
    delete_protected: bool = False


@dataclass(slots=True)
class Image:
    """A snapshot of ours. The vendor's own are in the catalogue."""

    id: int
    created: float
    description: str
    labels: Labels
    architecture: str
    flavour: str
    version: str
    disk_gb: int
    server: int
    server_name: str
    status: str = "creating"
    size_gb: float | None = None
    delete_protected: bool = False


@dataclass(slots=True)
class Zone:
    id: int
    name: str
    created: float
    ttl: int
    labels: Labels
    mode: str = "primary"
    delete_protected: bool = False
    serial: int = 1


@dataclass(slots=True)
class Rrset:
    id: int
    zone: int
    name: str  # within the zone; "@": the zone itself
    type: str
    ttl: int | None
    records: list[dict[str, str]]  # value, comment
    labels: Labels
    change_protected: bool = False
