"""How a site looks from outside: real TLS on a port of this host."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from tests.running import free_port
from tinyfat.drivers.authorities.sites import SiteAuthority
from tinyfat.drivers.sites.https import HttpsSites
from tinyfat.ports.sites import SiteSeen

NAME = "ada.agents.example.org"
AUTHORITY = SiteAuthority(b"s" * 32, "agents.example.org")


@asynccontextmanager
async def served(folder: Path, answer: bytes, name: str = NAME) -> AsyncIterator[int]:
    certificate, key = AUTHORITY.certificate("agent-1", name, datetime.now(UTC))
    (folder / "site.pem").write_text(certificate)
    (folder / "site.key").write_text(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "site.pem", folder / "site.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()) == b"HEAD / HTTP/1.1\r\n"
        writer.write(answer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
async def test_whoever_answers_with_the_names_certificate_is_a_site(tmp_path: Path, status: str) -> None:
    async with served(tmp_path, f"HTTP/1.1 {status}\r\n\r\n".encode()) as port:
        seen = await HttpsSites([AUTHORITY.pem], port).look(NAME, "127.0.0.1")
        shown = x509.load_pem_x509_certificate((tmp_path / "site.pem").read_bytes())
        assert seen == SiteSeen("", shown.not_valid_before_utc, shown.not_valid_after_utc)


@pytest.mark.parametrize(
    ("authorities", "name", "answer", "words"),
    [
        ((), NAME, b"HTTP/1.1 200 OK\r\n\r\n", "certificate is not valid"),
        ((AUTHORITY.pem,), "bob.agents.example.org", b"HTTP/1.1 200 OK\r\n\r\n", "certificate is not valid"),
        ((AUTHORITY.pem,), NAME, b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        ((AUTHORITY.pem,), NAME, b"", "not HTTP"),
        ((AUTHORITY.pem,), NAME, b"H" * 100_000, "does not answer"),
    ],
)
async def test_everybody_else_is_none(
    tmp_path: Path, authorities: tuple[str, ...], name: str, answer: bytes, words: str
) -> None:
    async with served(tmp_path, answer, name) as port:
        assert words in (await HttpsSites(authorities, port).look(NAME, "127.0.0.1")).complaint


async def test_nobody_there() -> None:
    said = (await HttpsSites([], free_port()).look(NAME, "127.0.0.1")).complaint
    assert "does not answer" in said


async def test_somebody_who_says_nothing() -> None:
    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = int(server.sockets[0].getsockname()[1])
        assert "within 0.2 s" in (await HttpsSites([], port, seconds=0.2).look(NAME, "127.0.0.1")).complaint
        await hung_up.wait()
