"""The whole story of an agent with a server of its own, on real machines: made, written to, found, logged in to, ended.

`make story-vm`. Root, Debian: containers of systemd with their own cloud-init and sshd; OpenClaw; dig and OpenSSH.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.running import TinyFat, free_port, until
from tests.stories.servers_town import (
    DOMAIN,
    HETZNER_TOKEN,
    PROGRAM_SECONDS_MAX,
    READY_SECONDS_MAX,
    Server,
    Town,
    alive,
    bridges,
    hetzner,
    host_key,
    leases,
    need_machines,
    processes,
    program,
    town,
)
from tests.stories.test_server_enrolment import open_ports
from tests.stories.town import PostOffice
from tinyfat.machine_hosts.networks import Bridge

pytestmark = pytest.mark.nspawn

GONE_SECONDS_MAX = 30.0


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


async def test_an_agent_on_a_server_of_its_own_from_beginning_to_end(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        image = await here.image("openclaw")
        server = await here.make("ada", "openclaw", "--image", image)
        steps = (await here.operator.ask("GET", "agents/ada"))["steps"]
        print(*(f"{step['name']}: {step['started_at']} - {step['ended_at']}" for step in steps), sep="\n")
        await it_answers_mail_by_a_model_it_has_no_key_to(here)
        await it_is_found_by_its_name(here, server)
        await nothing_but_ssh_is_open(server)
        await its_owner_logs_in(here, server, tmp_path)
        await its_operator_logs_in(here)
        await it_ends_and_leaves_nothing(here, server)
    assert Bridge(here.hosts).name not in await bridges()
    assert "Traceback" not in here.tinyfat.log.read_text()


async def test_a_server_is_replaced_and_nobody_who_writes_to_it_can_tell(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        old = await here.make("ada", "echo", "--image", await here.image("echo"))
        first, _ = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
        before = processes(here.hosts)
        known = await host_key(old.ipv4)
        await here.tinyfat.command("agent", "replace", "ada", seconds=READY_SECONDS_MAX)
        new = await here.server("ada")
        assert (new.id != old.id, new.ipv4) == (True, old.ipv4)
        assert await here.dig(f"ada.{DOMAIN}") == [old.ipv4]
        assert await host_key(new.ipv4) == known
        assert alive(before) == []
        _, said = await here.ask("ada", "And now?", "Re: Boat", in_reply_to=first)
        assert "Your first message here began: The boat is called Nordlicht." in said
        await it_ends_and_leaves_nothing(here, new)


async def test_the_same_at_hetzner_as_it_is_documented(tmp_path: Path, post: PostOffice) -> None:
    """By the vendor's client, at a stand-in whose servers are machines: they run the user-data they were given."""
    need_machines()
    machines = tmp_path / "hetzner" / "machines"
    gateway = (await Bridge(machines).subnet()).gateway.ipv4
    port = free_port()
    async with AsyncExitStack() as stack:
        image = await built_beforehand(tmp_path, "echo")
        url = await stack.enter_async_context(hetzner(tmp_path / "hetzner", image))
        settings = {
            "TINYFAT_MACHINE": "hetzner",
            "TINYFAT_HETZNER_URL": url,
            "TINYFAT_HETZNER_TOKEN": HETZNER_TOKEN,
            "TINYFAT_BOX_LISTEN": f"0.0.0.0:{port}",
            "TINYFAT_BOX_URL": f"https://{gateway}:{port}",
            "TINYFAT_BOX_RELAY_LISTEN": f"0.0.0.0:{free_port()}",
        }
        here = await stack.enter_async_context(town(tmp_path, post, machines, **settings))
        server = await here.make("ada", "echo")
        first, _ = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
        assert await here.dig(f"ada.{DOMAIN}") == [server.ipv4]
        await its_owner_logs_in(here, server, tmp_path)
        _, said = await here.ask("ada", "And now?", "Re: Boat", in_reply_to=first)
        assert "Your first message here began: The boat is called Nordlicht." in said
        await it_ends_and_leaves_nothing(here, server)
        assert await billed(url) == []


async def built_beforehand(folder: Path, runtime: str) -> str:
    """An image needs no running TinyFat."""
    return str((await TinyFat(folder / "builder").json("image", "build", "--runtime", runtime, seconds=900.0))["name"])


async def billed(url: str) -> list[str]:
    """What the vendor still has of ours that costs money."""
    found: list[str] = []
    headers = {"Authorization": f"Bearer {HETZNER_TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        for kind in ("servers", "primary_ips", "volumes"):
            found += [f"{kind} {one['name']}" for one in (await http.get(f"{url}/{kind}")).json()[kind]]
    return found


async def it_answers_mail_by_a_model_it_has_no_key_to(here: Town) -> None:
    first, said = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
    assert said.strip()
    _, said = await here.ask("ada", "What is the boat called?", "Re: Boat", in_reply_to=first)
    assert "Nordlicht" in said
    spent = await here.tinyfat.json("usage", "ada")
    assert spent["calls"] >= 2, spent


async def it_is_found_by_its_name(here: Town, server: Server) -> None:
    assert await here.dig(f"ada.{DOMAIN}") == [server.ipv4]
    assert await here.dig(f"nobody.{DOMAIN}") == []


async def nothing_but_ssh_is_open(server: Server) -> None:
    assert await asyncio.to_thread(open_ports, server.ipv4) == [22]


async def its_owner_logs_in(here: Town, server: Server, folder: Path) -> None:
    """With the fingerprint that the welcome mail told them, not on trust."""
    said = (await program("ssh-keyscan", "-t", "ed25519", server.ipv4)).splitlines()
    scanned = [line for line in said if line[0] != "#"]
    known = folder / "known_hosts"
    known.write_text("\n".join(scanned) + "\n")
    fingerprint = (await program("ssh-keygen", "-lf", str(known))).split()[1]
    assert fingerprint in here.welcome("ada")
    await program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "owner"))
    await owner_ssh(folder, server, "id -un", fails=True)
    await here.tinyfat.command("agent", "keys", "add", "ada", str(folder / "owner.pub"), "--label", "laptop")

    async def let_in() -> bool:
        try:
            return await owner_ssh(folder, server, "sudo -n id -un; hostname -f") == f"root\nada.{DOMAIN}\n"
        except AssertionError:
            return False

    await until(let_in, PROGRAM_SECONDS_MAX, "the owner's key opens the server")
    await here.tinyfat.command("agent", "keys", "remove", "ada", "laptop")

    async def shut_out() -> bool:
        try:
            return "Permission denied" in await owner_ssh(folder, server, "id", fails=True)
        except AssertionError:
            return False

    await until(shut_out, PROGRAM_SECONDS_MAX, "the key that was removed opens nothing")


async def owner_ssh(folder: Path, server: Server, command: str, fails: bool = False) -> str:
    options = {
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "ConnectTimeout": "5",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    argv = ["ssh", "-F", "none", "-i", str(folder / "owner"), *flags, f"owner@{server.ipv4}", command]
    return await program(*argv, fails=fails)


async def its_operator_logs_in(here: Town) -> None:
    assert (await here.tinyfat.command("ssh", "ada", "--why", "to look", "--", "id", "-un")).strip() == "operator"
    (session,) = await here.tinyfat.json("audit", "ada")
    assert (session["why"], session["exit_code"]) == ("to look", 0)


async def it_ends_and_leaves_nothing(here: Town, server: Server) -> None:
    its = processes(here.hosts)
    assert any(process.name() == "systemd" for process in its)
    await here.tinyfat.command("agent", "destroy", server.agent, "--yes")

    async def gone() -> bool:
        return not alive(its)

    await until(gone, GONE_SECONDS_MAX, "its processes are gone")
    assert list((here.hosts / "machines").iterdir()) == []
    assert leases(here.hosts) == {}
    assert await here.dig(f"{server.agent}.{DOMAIN}") == []
