"""On real machines: an agent's server is replaced and nobody notices; one that waited is an agent's in seconds."""

from __future__ import annotations

import asyncio
import tarfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.running import letter, until
from tests.stories.servers_town import DOMAIN, Town, alive, leases, need_machines, processes, program, town
from tests.stories.town import PostOffice, new_id
from tinyfat.machine_hosts.nspawn import NspawnHost

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


async def test_openclaw_on_another_server_remembers_the_conversation(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        image = await here.image("openclaw")
        old = await here.make("ada", "openclaw", "--image", image)
        key = await host_key(old.ipv4)
        first, _ = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
        await as_operator(here, "sudo", "-n", "-u", "tinyfat", "sh", "-c", f"echo what ada knows > {NOTES}")
        began = time.monotonic()
        await here.tinyfat.command("agent", "replace", "ada", "--image", image, seconds=REPLACE_SECONDS_MAX)
        print(f"replaced after {time.monotonic() - began:.1f} s")
        new = await here.server("ada")
        assert new.id != old.id and new.ipv4 == old.ipv4 and await host_key(new.ipv4) == key
        assert await here.dig(f"ada.{DOMAIN}") == [old.ipv4]
        # What the model is shown of the conversation is what OpenClaw kept of it on the other machine.
        _, said = await here.ask("ada", "What is the boat called?", "Re: Boat", in_reply_to=first)
        assert "Nordlicht" in said
        assert await as_operator(here, "sudo", "-n", "cat", NOTES) == "what ada knows\n"
        its, file = processes(here.hosts), tmp_path / "ada.tar.gz"
        await here.tinyfat.command(
            "agent", "destroy", "ada", "--yes", "--export", str(file), seconds=REPLACE_SECONDS_MAX
        )
        with tarfile.open(file) as tar:
            names = tar.getnames()
        assert "workspace/notes.md" in names
        assert any(name.startswith("state/agents/") and name.endswith(".sqlite") for name in names), names
        await nothing_left(here, its)
    assert "Traceback" not in here.tinyfat.log.read_text()


async def test_a_server_that_died_gets_a_successor_without_its_memory(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        image = await here.image("echo")
        old = await here.make("ada", "echo", "--image", image)
        key = await host_key(old.ipv4)
        first, _ = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
        await NspawnHost(here.hosts, here.hosts / "no-images", lambda: datetime.now(UTC)).destroy(old.id)
        asked = new_id()
        question = letter("Are you there?", to=f"ada@{DOMAIN}", subject="Re: Boat", message_id=asked, in_reply_to=first)
        assert (await here.tinyfat.send(question)).startswith("2")
        began = time.monotonic()
        await here.tinyfat.command(
            "agent", "replace", "ada", "--image", image, "--without-state", "--yes", seconds=REPLACE_SECONDS_MAX
        )
        print(f"replaced without state after {time.monotonic() - began:.1f} s")
        reply = await here.office.reply_to(asked)  # to what came while nobody was there
        assert "(turn 1 of this conversation)" in reply.text
        new = await here.server("ada")
        assert new.id != old.id and new.ipv4 == old.ipv4 and await host_key(new.ipv4) == key
        told = [str(mail.message["Subject"]) for mail in here.office.received]
        assert told.count("ada has another server, and its memory starts anew") == 1
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
