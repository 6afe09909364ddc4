"""A machine: where an agent's box and runtime live. Replaceable; the agent is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

PROCESS = "process"  # the kind of machine that is a process of the operator's host


class MachineState(StrEnum):
    """What a driver sees when it looks. `UNKNOWN` is never 'gone'."""

    GONE = "gone"
    STOPPED = "stopped"
    RUNNING = "running"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ServerOrder:
    """What a machine that is a whole server is made from, besides. It all goes into its user-data, which anyone on the
    machine may read, and the metadata service too: so nothing here stays valuable."""

    hostname: str  # the fully qualified name, e.g. ada.agents.example.org
    control_url: str  # https://HOST:PORT of the control plane as machines reach it: enrolment, link, the box itself
    control_ca: str  # PEM: the only authority that may vouch for it; "": the system's
    enrolment_token: str = field(repr=False)  # opens /box/enrol for this machine, once, ten minutes at most
    box_sha256: str  # of the box's archive, served at CONTROL_URL/box/archive/SHA256
    ssh_ca: str  # public key, one line: whose certificates the operator's account takes
    owner_keys: tuple[str, ...] = ()  # authorized_keys lines
    ssh_networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")  # from where port 22 is open
    published: bool = False  # port 443 is open, Caddy runs
    address: str = ""  # our id of the address it is to have from the start; "": one that goes with the machine
    image: str = ""  # name of a baked image; "": the provider's plain Debian
    size: str = ""  # the provider's word, e.g. cx23; "": the driver's default
    locations: tuple[str, ...] = ()  # in which order they are tried; (): the driver's default
    makes: str = ""  # name of the image that it is there to make or to try; "": it is an agent's, or the pool's


@dataclass(frozen=True, slots=True)
class MachineOrder:
    """What a machine is made from. The id is ours and makes every order idempotent."""

    id: str
    agent_name: str  # "": it waits in the warm pool
    runtime: str
    link_url: str  # where the box dials, e.g. ws://127.0.0.1:8025/box/link
    link_token: str  # opens this machine's own agent and nothing else; a server learns it by enrolling
    server: ServerOrder | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """An address that outlives the machines that have it in turn."""

    id: str  # ours: the agent's
    ipv4: str = ""
    ipv6: str = ""  # one address, not the network
    machine_id: str = ""  # who has it now; "": nobody
    location: str = ""  # the provider's word for where it can be used; "": anywhere


@dataclass(frozen=True, slots=True)
class MachineSeen:
    state: MachineState
    detail: str = ""  # for a person: why it is unknown, which process runs on
    ipv4: str = ""
    ipv6: str = ""


class BilledKind(StrEnum):
    """What a provider asks money for, or keeps for us."""

    SERVER = "server"
    ADDRESS = "address"
    IMAGE = "image"
    FIREWALL = "firewall"
    SSH_KEY = "ssh-key"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Billed:
    """A thing on the provider's list, ours or not."""

    kind: BilledKind
    provider_id: str
    name: str
    ours: bool  # labelled by this very installation
    owner_id: str  # our id of the machine (server, volume, firewall) or address, by its labels; "": none
    created_at: datetime
    detail: str = ""  # the provider's state, in its words
    monthly_nanodollars: int = 0  # as the provider's price list says; 0: free
    makes: str = ""  # of a server: the image that it is there to make or to try, by its labels


@dataclass(frozen=True, slots=True)
class Image:
    """A disk to make machines from."""

    name: str  # versioned with what is in it, e.g. openclaw-2026.9.6-78fb54d8-box-1a2b3c4d
    created_at: datetime
    bytes: int
    monthly_nanodollars: int = 0


class PoolState(StrEnum):
    """What a machine is to the warm pool, or was."""

    NONE = ""  # ordered for its agent
    BOOTING = "booting"
    READY = "ready"  # its runtime is up: it may be claimed
    ENDING = "ending"  # too old, or one too many
    CLAIMED = "claimed"  # it never goes back


@dataclass(frozen=True, slots=True)
class Machine:
    id: str
    agent_id: str  # "": it waits in the warm pool
    kind: str
    wanted: bool  # should it be running?
    link_state: str  # the box's last word: see link.RuntimeState
    link_detail: str
    seen_at: datetime | None  # the box's last heartbeat
    version: str = ""  # of the runtime
    memory_bytes: int = 0
    restarts: int = 0
    runtime: str = ""
    generation: int = 1  # of the agent's machines
    current: bool = True  # it is the one that answers; False: the other side of a move
    pool: PoolState = PoolState.NONE
    address_id: str = ""
    image: str = ""
    size: str = ""
    location: str = ""
    hostname: str = ""  # fully qualified
    ipv4: str = ""
    ipv6: str = ""
    monthly_nanodollars: int = 0
    created_at: datetime | None = None
    ordered_at: datetime | None = None
    enrolled_at: datetime | None = None
    identity_serial: int = 1
    identity_fetched: int = 0  # the serial of the identity it fetched last
    identity_in_force: int = 0  # of the last that it has wholly become
    identity_complaint: str = ""  # why it could not become the newest it tried

    @property
    def claimed(self) -> bool:
        """It came from the warm pool."""
        return self.pool is PoolState.CLAIMED

    @property
    def knows_itself(self) -> bool:
        """It has fetched what it is to be by now, or never asks: a machine that is no server is told when it starts."""
        return not self.hostname or self.identity_fetched >= self.identity_serial
