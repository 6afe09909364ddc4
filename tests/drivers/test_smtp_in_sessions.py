"""The bound on SMTP sessions holds on either event loop: `tinyfat up` runs on uvloop, the tests on asyncio's own."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.certificates import certificate
from tests.machine_speed import patient
from tinyfat.drivers.mail import smtp_in
from tinyfat.drivers.mail.smtp_in import SmtpBounds, SmtpIn
from tinyfat.drivers.mail.smtp_tls import TlsFiles

SESSIONS = 3
HANDSHAKES = 20
SECONDS_MAX = 5.0


class _NoIntake:
    def room(self, size: int) -> None:
        raise AssertionError("nobody names a recipient here")

    async def recipient(self, address: str) -> None:
        raise AssertionError("nobody writes here")

    async def accept(self, *_: object) -> str:
        raise AssertionError("nobody writes here")


async def _one_too_many() -> None:
    server = SmtpIn(_NoIntake(), "127.0.0.1", 0, "tinyfat.localhost", SmtpBounds(1000))
    await server.start()
    try:
        async with asyncio.timeout(patient(SECONDS_MAX)), AsyncExitStack() as stack:
            connections = [await _dial(server, stack) for _ in range(SESSIONS)]
            for reader, _ in connections:
                assert (await reader.readline()).startswith(b"220")
            reader, _ = await _dial(server, stack)
            assert (await reader.readline()).startswith(b"421 4.3.2")
            assert await reader.read() == b""
            reader, writer = connections[0]
            writer.write(b"QUIT\r\n")
            await reader.read()
            reader, _ = await _dial(server, stack)
            assert (await reader.readline()).startswith(b"220")
    finally:
        await server.stop()


async def _dial(server: SmtpIn, stack: AsyncExitStack) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    stack.push_async_callback(writer.wait_closed)
    stack.callback(writer.close)
    return reader, writer


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_session_too_many_is_asked_to_come_later(
    run: Callable[[Coroutine[Any, Any, None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_in, "SESSIONS_MAX", 2 * SESSIONS)  # this machine has half of them
    run(_one_too_many())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_peer_that_begins_tls_at_once_finds_it_there(
    run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path
) -> None:
    made = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(made.certificate))

    def talk(port: int) -> None:
        for _ in range(HANDSHAKES):
            with smtplib.SMTP("127.0.0.1", port, timeout=patient(SECONDS_MAX)) as peer:
                peer.starttls(context=trusted)
                assert peer.noop()[0] == 250

    async def story() -> None:
        bounds, context = SmtpBounds(1000), TlsFiles(made.certificate, made.key)
        server = SmtpIn(_NoIntake(), "127.0.0.1", 0, "tinyfat.localhost", bounds, context)
        await server.start()
        try:
            await asyncio.to_thread(talk, server.port)
        finally:
            await server.stop()

    run(story())
