"""Who may be connected: bounds in all and by peer, on either event loop, with TLS and without."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.certificates import certificate
from tests.machine_speed import patient
from tinyfat.drivers.mail.smtp_tls import tls_context
from tinyfat.engine import connections as module
from tinyfat.engine.connections import Connections, Door, peer_of

Run = Callable[[Coroutine[Any, Any, None]], None]
either_loop = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::", 1, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
        (("127.0.0.1", 1), ""),
        (("127.9.9.9", 1), ""),
        (("::1", 1, 0, 0), ""),
        (("::ffff:127.0.0.1", 1, 0, 0), ""),
        ("", ""),
        ("/run/socket", ""),
        (None, ""),
    ],
)
def test_whom_an_address_counts_as(address: object, peer: str) -> None:
    assert peer_of(address) == peer


def test_a_peer_has_its_bound_and_all_have_one() -> None:
    connections = Connections(in_all=10, of_peer=3)
    assert [connections.enter("192.0.2.1") for _ in range(4)] == [True, True, True, False]
    assert [connections.enter("2001:db8::/64") for _ in range(4)] == [True, True, True, False]
    assert [connections.enter(f"192.0.2.{n}") for n in range(2, 8)] == [True] * 2 + [False] * 4
    assert len(connections) == 8  # a quarter is no stranger's
    connections.leave("192.0.2.1")
    assert connections.enter("192.0.2.9")


def test_this_machine_and_those_we_trust_have_half() -> None:
    trusted = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8:7::/48"))
    connections = Connections(in_all=20, of_peer=2, roomy=trusted)
    assert [connections.enter("") for _ in range(11)] == [True] * 10 + [False]
    assert connections.enter("192.0.2.1")
    assert [connections.enter("198.51.100.9") for _ in range(10)] == [True] * 9 + [False]
    assert Connections(20, 2, trusted)._share("2001:db8:7:1::/64") == 10


def test_however_many_strangers_come_this_machine_and_those_we_trust_have_places() -> None:
    trusted = (ipaddress.ip_network("198.51.100.0/24"),)
    connections = Connections(in_all=400, of_peer=2, roomy=trusted)
    strangers = [f"203.0.{high}.{low}" for high in range(4) for low in range(256)]
    came = [peer for peer in strangers for _ in range(2) if connections.enter(peer)]
    assert len(came) == len(connections) == 300 and not connections.enter("192.0.2.1")
    assert [connections.enter(peer) for peer in ("", "198.51.100.9") * 50] == [True] * 100
    assert not connections.enter("") and not connections.enter("198.51.100.10")
    for peer in came:
        connections.leave(peer)
    assert connections.enter("192.0.2.1")


def test_of_a_site_not_each_network_is_a_peer_more() -> None:
    """Who has an IPv6 network of 48 bits has 65,536 of 64."""
    connections = Connections(in_all=4096, of_peer=10)
    peers = [peer_of((f"2001:db8:5:{n:x}::1", 1, 0, 0)) for n in range(500)]
    came = [peer for peer in peers for _ in range(10) if connections.enter(peer)]
    assert len(came) == module.SITE_TIMES * 10
    assert connections.enter("2001:db8:6::/64")  # another site
    assert connections.enter("192.0.2.1")
    for peer in [*came, "2001:db8:6::/64", "192.0.2.1"]:
        connections.leave(peer)
    assert len(connections) == 0 and not connections._open and not connections._of_site and not connections._strangers
    assert connections.enter(peers[-1])


def test_the_files_we_may_open_bound_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (module.FILES_KEPT + 5 * 100, 10_000))
    assert module.affordable(4096) == 100
    assert module.affordable(50) == 50


def test_the_limit_of_files_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = [(1024, 4096)]
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: limit[0])
    monkeypatch.setattr(module.resource, "setrlimit", lambda _, new: limit.__setitem__(0, new))
    assert module.raise_file_limit() == 4096
    limit[0] = (1024, module.resource.RLIM_INFINITY)
    assert module.raise_file_limit() == module.FILES_WANTED
    limit[0] = (100_000, 200_000)
    assert module.raise_file_limit() == 100_000


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


def _bound() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patient(20)):
        while not condition():
            await asyncio.sleep(0.002)


@either_loop
def test_a_place_is_free_again_whoever_closes(run: Run) -> None:
    async def story() -> None:
        door = Door("test", _Echo, Connections(in_all=4, of_peer=2), b"full\n")
        listener = _bound()
        door.listen(listener)
        port = listener.getsockname()[1]
        first = await asyncio.open_connection("127.0.0.1", port)
        second = await asyncio.open_connection("127.0.0.1", port)
        await _until(lambda: len(door.connections) == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"full\n"
        writer.close()
        first[1].write(b"hi")
        assert await first[0].readexactly(2) == b"hi"
        first[1].close()
        await _until(lambda: len(door.connections) == 1)
        second[1].transport.abort()
        await _until(lambda: len(door.connections) == 0)
        third = await asyncio.open_connection("127.0.0.1", port)
        third[1].write(b"hi")
        assert await third[0].readexactly(2) == b"hi"
        third[1].close()
        await _until(lambda: len(door.connections) == 0)
        await door.close()

    run(story())


@either_loop
def test_who_does_not_finish_its_tls_handshake_is_counted_and_closed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS_MAX", 0.2)
    made = certificate(tmp_path)
    context = tls_context(made.certificate, made.key)

    async def story() -> None:
        door = Door("test", _Echo, Connections(in_all=2, of_peer=1))
        listener = _bound()
        door.listen(listener, context)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        await _until(lambda: len(door.connections) == 1)
        async with asyncio.timeout(patient(20)):
            assert await reader.read() == b""
        writer.close()
        await _until(lambda: len(door.connections) == 0)
        await door.close()

    run(story())


@either_loop
def test_closing_ends_handshakes_and_frees_the_port(run: Run, tmp_path: Path) -> None:
    made = certificate(tmp_path)
    context = tls_context(made.certificate, made.key)

    async def story() -> None:
        door = Door("test", _Echo, Connections(in_all=2, of_peer=1))
        listener = _bound()
        port = listener.getsockname()[1]
        door.listen(listener, context)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await _until(lambda: len(door.connections) == 1)
        await door.close()
        writer.close()
        assert len(door.connections) == 0
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    run(story())
