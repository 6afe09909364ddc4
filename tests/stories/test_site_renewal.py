"""A site's certificate of our own authority is replaced before it ends, with nothing restarted and nobody turned away.

`make machines-long`: certificates of a minute and a half, of which each is the newest for thirty seconds.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from tests.machine_speed import patient
from tests.running import until
from tests.stories.servers_town import DOMAIN, READY_SECONDS_MAX, Server, Town, need_machines, town
from tests.stories.test_site import on_it
from tests.stories.town import PostOffice
from tinyfat.server_wiring import SITES_AUTHORITY_FILE

pytestmark = [pytest.mark.nspawn, pytest.mark.long]

NAME = f"ada.{DOMAIN}"
VALID_SECONDS = 90
VISIT_SECONDS_MAX = 5.0
PAUSE_SECONDS = 0.05  # between two visits
# The site's server, the box, and what they run on: whoever was started anew has another.
PROCESSES = "systemctl show -P MainPID tinyfat-site tinyfat-box; cat /proc/sys/kernel/random/boot_id"


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


@dataclass
class Visits:
    """Who comes again and again, over a new connection each time. `seen`: certificates by serial number."""

    seen: dict[int, x509.Certificate] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    count: int = 0
    least_left: float = VALID_SECONDS  # seconds until the one that was shown would have ended

    async def newer_than(self, number: int) -> None:
        async def come() -> bool:
            return len(self.seen) > number

        await until(come, VALID_SECONDS, f"certificate {number + 1}")

    def visited(self, certificate: x509.Certificate, status: bytes) -> None:
        self.count += 1
        if status != b"HTTP/1.1 404 Not Found\r\n":
            self.refused.append(repr(status))
        self.seen[certificate.serial_number] = certificate
        left = (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds()
        self.least_left = min(self.least_left, left)


async def test_a_certificate_is_renewed_before_it_ends(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post, TINYFAT_SITE_CERTIFICATE_SECONDS=str(VALID_SECONDS)) as here:
        server = await here.make("ada", "echo", "--image", await here.image("echo"))
        await here.tinyfat.command("agent", "publish", "ada", seconds=READY_SECONDS_MAX)
        before = await on_it(here, PROCESSES)
        async with visited(here, server) as visits:
            await visits.newer_than(2)
            assert await on_it(here, PROCESSES) == before

            await here.tinyfat.stop()
            known = len(visits.seen)
            await until(another_period(visits), VALID_SECONDS, "there would be another certificate")
            assert len(visits.seen) == known
            await here.tinyfat.start()
            await visits.newer_than(known)
            assert await on_it(here, PROCESSES) == before
        print(f"{visits.count} visits, {len(visits.seen)} certificates, {visits.least_left:.0f} s left at the least")
        assert visits.refused == []
        assert visits.least_left > 0
        assert "complains" not in await here.tinyfat.command("agent", "show", "ada")
        await here.tinyfat.command("agent", "destroy", "ada", "--yes")


def another_period(visits: Visits) -> Callable[[], Awaitable[bool]]:
    """The newest that was shown is not the newest any more: it has run for a third of its time."""

    async def passed() -> bool:
        ends = max(one.not_valid_after_utc for one in visits.seen.values())
        return (ends - datetime.now(UTC)).total_seconds() < VALID_SECONDS * 2 / 3 - 1

    return passed


@asynccontextmanager
async def visited(here: Town, server: Server) -> AsyncIterator[Visits]:
    """By somebody who trusts our authority alone."""
    context = ssl.create_default_context(cafile=str(here.tinyfat.home / SITES_AUTHORITY_FILE))
    visits, over = Visits(), asyncio.Event()

    async def go_on() -> None:
        while not over.is_set():
            try:
                async with asyncio.timeout(patient(VISIT_SECONDS_MAX)):
                    await visit(server.ipv4, context, visits)
            except (OSError, TimeoutError) as error:
                visits.refused.append(f"{type(error).__name__}: {error}")
            try:
                await asyncio.wait_for(over.wait(), PAUSE_SECONDS)
            except TimeoutError:
                continue

    task = asyncio.create_task(go_on())
    try:
        yield visits
    finally:
        over.set()
        await task


async def visit(address: str, context: ssl.SSLContext, visits: Visits) -> None:
    reader, writer = await asyncio.open_connection(address, 443, ssl=context, server_hostname=NAME)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(f"HEAD /nothing HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        visits.visited(x509.load_der_x509_certificate(shown), await reader.readline())
    finally:
        writer.transport.abort()
