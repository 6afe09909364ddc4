"""`tinyfat standin`, as a program."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import httpx2
import pytest

from tests.machine_speed import patient
from tests.running import free_port

pytestmark = pytest.mark.slow

SECONDS = 60.0
TOKEN = "token-of-the-program"


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[dict[str, str]]:
    """What it says of itself, by its first word; at the end it ends by SIGTERM, and well."""
    environment = {**os.environ, "TINYFAT_STANDIN_TOKEN": TOKEN, "PYTHONPATH": "src"}
    argv = [sys.executable, "-m", "tinyfat", "standin", *arguments]
    process = await asyncio.create_subprocess_exec(*argv, env=environment, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    said: dict[str, str] = {}
    try:
        async with asyncio.timeout(patient(SECONDS)):
            while "api" not in said:
                line = (await process.stdout.readline()).decode()
                assert line, f"it ended: {said}"
                word, _, rest = line.partition(" ")
                said[word] = rest.strip()
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), SECONDS)
    assert code == 0


async def dig(address: str, name: str) -> list[str]:
    host, _, port = address.rpartition(":")
    message = await dns.asyncquery.udp(dns.message.make_query(name, "A"), host, 5, int(port))
    return [rdata.to_text() for rrset in message.answer for rdata in rrset]


async def ask(url: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, timeout=SECONDS) as client:
        response = await client.request(method, f"{url}{path}", json=body)
    return response.status_code, response.json()


async def test_hetzner_is_ended_and_begun_again(tmp_path: Path) -> None:
    arguments = ["hetzner", "--listen", f"127.0.0.1:{free_port()}", "--dns-listen", f"127.0.0.1:{free_port()}"]
    arguments += ["--state", str(tmp_path / "state"), "--action-seconds", "0", "--lie", "capacity:fsn1=1"]
    arguments += ["--zone", "agents.example"]
    record = {"name": "ada", "type": "A", "records": [{"value": "192.0.2.1"}]}
    server = {"name": "ada", "server_type": "cx23", "image": "debian-12"}
    async with program(*arguments) as said:
        assert (await ask(said["api"], "POST", "/servers", server))[0] == 412
        assert (await ask(said["api"], "POST", "/servers", server))[0] == 201
        zone = {"name": "example.org", "mode": "primary"}
        assert (await ask(said["api"], "POST", "/zones", zone))[0] == 201
        assert (await ask(said["api"], "POST", "/zones/example.org/rrsets", record))[0] == 201
        assert (await ask(said["api"], "GET", "/servers"))[1]["servers"][0]["status"] == "running"
        assert await dig(said["dns"], "ada.example.org") == ["192.0.2.1"]
        assert (await ask(said["api"], "POST", "/zones/agents.example/rrsets", record))[0] == 201
    async with program(*arguments) as said:
        assert (await ask(said["api"], "GET", "/servers"))[1]["servers"][0]["name"] == "ada"
        zones = (await ask(said["api"], "GET", "/zones"))[1]["zones"]
        assert sorted(one["name"] for one in zones) == ["agents.example", "example.org"]
        assert await dig(said["dns"], "ada.agents.example") == ["192.0.2.1"]
        assert await dig(said["dns"], "ada.example.org") == ["192.0.2.1"]


async def test_cloudflare() -> None:
    arguments = ["cloudflare", "--listen", f"127.0.0.1:{free_port()}", "--zone", "example.org"]
    async with program(*arguments, "--dns-listen", f"127.0.0.1:{free_port()}") as said:
        (zone,) = (await ask(said["api"], "GET", "/zones"))[1]["result"]
        record = {"name": "ada", "type": "A", "content": "192.0.2.1", "ttl": 60}
        assert (await ask(said["api"], "POST", f"/zones/{zone['id']}/dns_records", record))[0] == 200
        assert await dig(said["dns"], "ada.example.org") == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["hetzner", "--lie", "tell-the-truth"], "tell-the-truth"),
        (["hetzner", "--listen", "nowhere"], "--listen"),
        (["hetzner", "--backend", "nspawn"], "--state"),
        (["hetzner", "--zone", "-bad-"], "--zone"),
        (["cloudflare", "--dns-listen", "53"], "--dns-listen"),
    ],
)
async def test_wrong_use(arguments: list[str], word: str) -> None:
    argv = [sys.executable, "-m", "tinyfat", "standin", *arguments]
    environment = {**os.environ, "PYTHONPATH": "src", "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(*argv, env=environment, stderr=asyncio.subprocess.PIPE)
    _, error = await asyncio.wait_for(process.communicate(), SECONDS)
    assert word in error.decode()
    assert process.returncode != 0
