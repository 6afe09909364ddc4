"""One project of the vendor's: what it holds, and the host its machines are on. Nothing here knows HTTP."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from tinyfat.domain.machines import MachineState
from tinyfat.machine_hosts.machine_host import MachineHost, MachineHostError
from tinyfat.standins.clock import Clock
from tinyfat.standins.hetzner.memory_host import MemoryHost
from tinyfat.standins.hetzner.resources import (
    Action,
    Firewall,
    Image,
    PrimaryIp,
    Rrset,
    Server,
    SshKey,
    Volume,
    Zone,
)
from tinyfat.standins.lies import Lies
from tinyfat.standins.published import Published

_log = logging.getLogger(__name__)

FIRST_ID = 1001
GONE_KEPT_MAX = 100  # per collection, for lists that lag
STATES_KNOWN_SECONDS = 0.5  # how long what a real host said of its machines is believed


@dataclass(frozen=True, slots=True)
class Options:
    """What this stand-in is like, apart from its lies."""

    action_seconds: float = 0.5  # how long an action takes at the least
    late_seconds: float = 2.0  # how long lists lag under the lie list-late
    dns_seconds: float = 0.0  # from an accepted change of a record to its being answered
    server_limit: int = 1000
    address_limit: int = 2000
    memory_bytes_max: int = 0  # of a real machine; 0: what the server type says
    host_image: str = ""  # the host's image for every system image; "": the newest whose name begins with its name


@dataclass(slots=True)
class Cloud:
    """Handlers and effects change it directly; one at a time, under the server's lock."""

    clock: Clock = field(default_factory=Clock)
    options: Options = field(default_factory=Options)
    lies: Lies = field(default_factory=Lies)
    host: MachineHost | None = None  # None: a MemoryHost
    servers: dict[int, Server] = field(default_factory=dict)
    primary_ips: dict[int, PrimaryIp] = field(default_factory=dict)
    ssh_keys: dict[int, SshKey] = field(default_factory=dict)
    firewalls: dict[int, Firewall] = field(default_factory=dict)
    volumes: dict[int, Volume] = field(default_factory=dict)
    images: dict[int, Image] = field(default_factory=dict)
    zones: dict[int, Zone] = field(default_factory=dict)
    rrsets: dict[int, Rrset] = field(default_factory=dict)
    actions: dict[int, Action] = field(default_factory=dict)
    pending: dict[int, Action] = field(default_factory=dict)  # of the actions: those that are not settled
    work: dict[int, asyncio.Task[Any]] = field(default_factory=dict)  # by action: what the host is doing for it
    gone: dict[str, deque[tuple[float, dict[str, Any]]]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=GONE_KEPT_MAX))
    )
    published: Published = field(init=False)
    last_id: int = FIRST_ID - 1
    prefix: str = field(default_factory=lambda: f"hz{secrets.token_hex(3)}")  # of our machines' names on the host
    changed: bool = True  # since it was last written down
    _states_at: float = float("-inf")

    def __post_init__(self) -> None:
        if self.host is None:
            self.host = MemoryHost(self.clock)
        self.published = Published(self.clock, self.options.dns_seconds)

    @property
    def machines(self) -> MachineHost:
        assert self.host is not None
        return self.host

    def next_id(self) -> int:
        """One count for everything: no two things of any kind share an id, so a mix-up shows."""
        self.last_id += 1
        return self.last_id

    def machine_name(self, server_id: int) -> str:
        return f"{self.prefix}-{server_id}"

    def image_name(self, image_id: int) -> str:
        return f"{self.prefix}-image-{image_id}"

    def bury(self, collection: str, wire: dict[str, Any]) -> None:
        """Remember how it looked, for lists that lag."""
        self.gone[collection].append((self.clock(), wire))

    def running(self, kind: str, resource_id: int) -> list[Action]:
        """Actions under way on a resource. One that hangs says so for ever, and holds nothing up once it is due."""
        wanted = (kind, resource_id)
        return [a for a in self.pending.values() if not a.settled and wanted in a.resources]

    async def observe(self) -> None:
        """A server's status is what its machine does: it may have been switched off from within."""
        now = time.monotonic()
        if not isinstance(self.host, MemoryHost) and now - self._states_at < STATES_KNOWN_SECONDS:
            return
        self._states_at = now
        try:
            seen = {machine.name: machine.state for machine in await self.machines.machines()}
        except MachineHostError as error:
            _log.warning("The machine host cannot be seen: %s", error)
            return
        for server in self.servers.values():
            if server.status not in ("running", "off", "unknown") or self.running("server", server.id):
                continue
            status = _STATUS.get(seen.get(self.machine_name(server.id), MachineState.UNKNOWN), "unknown")
            self.changed = self.changed or status != server.status
            server.status = status


_STATUS = {MachineState.RUNNING: "running", MachineState.STOPPED: "off"}
