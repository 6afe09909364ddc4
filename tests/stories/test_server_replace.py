"""On real machines: an agent's server is replaced and nobody notices; one that waited is an agent's in seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running import until
from tests.stories.servers_town import DOMAIN, Town, alive, leases, need_machines, processes, program, town
from tests.stories.town import PostOffice

pytestmark = pytest.mark.nspawn

GONE_SECONDS_MAX = 30.0
REPLACE_SECONDS_MAX = 400.0
POOL_SECONDS_MAX = 120.0
NOTES = "/var/lib/tinyfat/box/workspace/notes.md"


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


async def host_key(ipv4: str) -> str:
    lines = (await program("ssh-keyscan", "-t", "ed25519", ipv4)).splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    return line.partition(" ")[2]


async def as_operator(here: Town, *command: str) -> str:
    return await here.tinyfat.command("ssh", "ada", "--", *command)


async def nothing_left(here: Town, its: list) -> None:  # type: ignore[type-arg]
    async def gone() -> bool:
        return not alive(its)

    await until(gone, GONE_SECONDS_MAX, "its processes are gone")
    assert list((here.hosts / "machines").iterdir()) == [] and leases(here.hosts) == {}
    found = await here.tinyfat.json("fleet", "--look")
    assert (found["machines"], found["alarms"]) == ([], [])


async def test_another_server_with_the_same_name_address_key_and_memory(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        image = await here.image("echo")
        old = await here.make("ada", "echo", "--image", image)
        key = await host_key(old.ipv4)
        await here.ask("ada", "Hello.")
        await as_operator(here, "sudo", "-n", "-u", "tinyfat", "sh", "-c", f"echo what ada knows > {NOTES}")
        began = time.monotonic()
        replacing = asyncio.create_task(
            here.tinyfat.command("agent", "replace", "ada", "--image", image, seconds=REPLACE_SECONDS_MAX)
        )
        asked = [asyncio.create_task(here.ask("ada", f"Question {number}.", f"Q{number}")) for number in range(3)]
        await replacing
        print(f"replaced after {time.monotonic() - began:.1f} s")
        for answer in await asyncio.gather(*asked):  # asked meanwhile, each is answered
            assert answer[1].strip()
        new = await here.server("ada")
        assert new.id != old.id and new.ipv4 == old.ipv4 and await host_key(new.ipv4) == key
        assert await here.dig(f"ada.{DOMAIN}") == [old.ipv4]
        assert await as_operator(here, "sudo", "-n", "cat", NOTES) == "what ada knows\n"
        assert (await as_operator(here, "hostname", "-f")).strip() == f"ada.{DOMAIN}"
        steps = (await here.operator.ask("GET", "agents/ada"))["steps"]
        print(*(f"{s['flow']} {s['name']}: {s['started_at']} - {s['ended_at']} {s['detail']}" for s in steps), sep="\n")
        assert [folder.name for folder in (here.hosts / "machines").iterdir()] != [] and len(leases(here.hosts)) == 1
        assert list((here.tinyfat.home / "moves").iterdir()) == []
        its = processes(here.hosts)
        await here.tinyfat.command("agent", "destroy", "ada", "--yes")
        await nothing_left(here, its)
    assert "Traceback" not in here.tinyfat.log.read_text()


async def test_a_server_that_waited_is_an_agents_in_seconds(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        image = await here.image("echo")
    async with town(tmp_path, post, TINYFAT_POOL="here=1", TINYFAT_POOL_RUNTIME="echo", TINYFAT_IMAGE=image) as here:

        async def waits() -> bool:
            machines = (await here.tinyfat.json("fleet"))["machines"]
            return [machine["pool"] for machine in machines] == ["ready"]

        await until(waits, POOL_SECONDS_MAX, "a server waits")
        waiting = (await here.tinyfat.json("fleet"))["machines"][0]
        money = (await here.tinyfat.json("money"))["agents"]
        assert any(line["plan"] == "pool" for line in money)
        began = time.monotonic()
        server = await here.make("ada", "echo")
        seconds = time.monotonic() - began
        print(f"claimed and answered after {seconds:.1f} s")
        assert (server.id, server.ipv4) == (waiting["id"], waiting["ipv4"]) and seconds < 10.0
        assert (await as_operator(here, "hostname", "-f")).strip() == f"ada.{DOMAIN}"
        assert await here.dig(f"ada.{DOMAIN}") == [server.ipv4]
        await here.ask("ada", "Hello.")
        await until(lambda: two(here), POOL_SECONDS_MAX, "its place is filled again")
        await here.tinyfat.command("agent", "destroy", "ada", "--yes")
        assert [m["pool"] for m in (await here.tinyfat.json("fleet"))["machines"]] in (["ready"], ["booting"])
    assert "Traceback" not in here.tinyfat.log.read_text()


async def two(here: Town) -> bool:
    machines = (await here.tinyfat.json("fleet"))["machines"]
    return sorted(machine["pool"] for machine in machines) == ["claimed", "ready"]
