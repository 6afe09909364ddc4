"""A free port: as a server of ours will find it."""

from __future__ import annotations

import socket

import pytest

from tinyfat.box.runtimes.loopback import PORTS_VARIABLE, free_port


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The only one we may have."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    monkeypatch.setenv(PORTS_VARIABLE, f"{number}-{number}")
    return number


def test_a_port_somebody_listens_on_is_not_free(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="is free"):
        free_port()


def test_a_port_whose_connections_ended_a_moment_ago_is_free(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        peer = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
        served.close()  # the side that closes first keeps the connection in TIME-WAIT
        assert peer.recv(1) == b""
        peer.close()
    assert free_port() == port
