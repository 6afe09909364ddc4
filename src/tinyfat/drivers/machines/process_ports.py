"""Which TCP ports of this host no box beside us may have. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from tinyfat.sandbox.landlock import Ports

POSTGRES_PORT = 5432
BOXES_PORTS = range(24_000, 32_000)  # below what Linux gives to whoever asks for any (32768 and up)
PORTS_EACH = 16  # a gateway, a forwarder, and those that closed a minute ago


def closed_ports(smtp: int, listeners: Iterable[int], database_url: str | None, relays: Iterable[int]) -> Ports:
    """`smtp`: ours, which trusts this host and so would take any owner's name from a box. `listeners`: all of ours: a
    box that listened there while we are away would hear the others' tokens. `relays`: of smarthosts that ask no
    password, and so trust this host too. A database may. 0 is no port."""
    ours = {smtp, *listeners} - {0}
    foreign = {*relays, *_database_ports(database_url)}
    return Ports(frozenset({smtp, *foreign} - {0}), frozenset(ours | foreign - {0}))


def own_ports(number: int) -> range:
    """Where the box of this number, and no other, may listen. Raises ValueError past the last."""
    first = BOXES_PORTS.start + number * PORTS_EACH
    if first not in BOXES_PORTS:
        raise ValueError(f"of machines on one host there are at most {len(BOXES_PORTS) // PORTS_EACH}")
    return range(first, first + PORTS_EACH)


def seen_by(number: int, closed: Ports) -> Ports:
    """What the box of this number may not have."""
    return Ports(closed.no_connect, closed.no_bind | frozenset(BOXES_PORTS) - frozenset(own_ports(number)))


def _database_ports(url: str | None) -> set[int]:
    """Of a connection URI (PostgreSQL manual, 34.1.1.2), which may name several hosts; none for a Unix socket."""
    if not url:
        return set()
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    ports = {int(port) for host in hosts if (port := host.rpartition(":")[2]).isdecimal() and ":" in host}
    ports |= {int(port) for port in ",".join(asked.get("port", [])).split(",") if port.isdecimal()}
    named = [*filter(None, hosts), *asked.get("host", []), *asked.get("hostaddr", [])]
    if named and all(host.startswith(("/", "%2F", "%2f")) for host in named):
        return set()
    return ports or {POSTGRES_PORT}
