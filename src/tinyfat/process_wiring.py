"""Machines that are processes of this host: their driver, and what of ours their boxes may not reach."""

from __future__ import annotations

import time
from collections.abc import Iterable

from tinyfat.drivers.machines.process import ProcessMachines
from tinyfat.drivers.machines.process_ports import closed_ports
from tinyfat.sandbox.landlock import Ports
from tinyfat.sandbox.means import NONE, here
from tinyfat.server_wiring import ServerSide
from tinyfat.settings import Settings


def process_machines(settings: Settings) -> ProcessMachines:
    means = here if settings.process_sandbox else lambda: NONE
    return ProcessMachines(settings.home / "machines", settings.cache / "runtimes", time.monotonic, means)


def ports_closed(settings: Settings, side: ServerSide, smtp: int, listeners: Iterable[int]) -> Ports:
    """`smtp`: where we listen, 0: not known yet; `listeners`: HTTP and the relay."""
    servers = (side.door.box_listener, side.door.relay_listener) if side.door else ()
    ours = (*listeners, *(server.getsockname()[1] for server in servers))
    smarthost = settings.smarthost
    relays = [smarthost.address.port] if smarthost and not smarthost.password else []
    return closed_ports(smtp, ours, settings.database_url, relays)
