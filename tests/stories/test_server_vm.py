"""The same whole story on a real virtual machine: a kernel of its own, cloud-init from a seed, QEMU's network.

`make story-vm`. Without KVM its processor is emulated, and node would take minutes: so the runtime is echo.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running import TinyFat, free_port, until
from tests.stories.servers_town import (
    DOMAIN,
    IMAGE_SECONDS_MAX,
    Server,
    Town,
    alive,
    leases,
    need_machines,
    processes,
    town,
)
from tests.stories.test_servers import GONE_SECONDS_MAX, its_operator_logs_in, its_owner_logs_in
from tests.stories.test_site import on_it, page, page_is
from tests.stories.town import PostOffice
from tinyfat.domain.enrolment import PUBLIC_FOLDER

pytestmark = pytest.mark.vm

PAGE = "The boat is called Nordlicht.\n"
BOOT_SECONDS_MAX = 600.0  # two minutes without KVM; five where the host has other work


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


async def test_an_agent_on_a_virtual_machine_from_beginning_to_end(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    box_port, relay_port = free_port(), free_port()
    async with town(tmp_path, post, **virtual(box_port, relay_port)) as here:
        image = await here.image("echo", "local_vm")
        server = await here.make("ada", "echo", "--image", image, seconds=BOOT_SECONDS_MAX)
        steps = (await here.operator.ask("GET", "agents/ada"))["steps"]
        print(*(f"{step['name']}: {step['started_at']} - {step['ended_at']}" for step in steps), sep="\n")
        first, _ = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
        _, said = await here.ask("ada", "And now?", "Re: Boat", in_reply_to=first)
        assert "Your first message here began: The boat is called Nordlicht." in said
        assert await here.dig(f"ada.{DOMAIN}") == [server.ipv4]
        await its_owner_logs_in(here, server, tmp_path)
        await its_operator_logs_in(here)
        await it_reaches_nothing_of_its_host_but_the_way_in(here, (box_port, relay_port))
        await its_site_is_shown(here, server)
        await its_site_is_ended(here, server)
        await it_ends_and_leaves_nothing(here, server)
    assert "Traceback" not in here.tinyfat.log.read_text()


@pytest.mark.long
async def test_an_agent_on_a_clone_that_waited_in_the_warm_pool(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    builder = TinyFat(tmp_path / "builder")
    built = await builder.json("image", "build", "--runtime", "echo", "--driver", "local_vm", seconds=IMAGE_SECONDS_MAX)
    await builder.command("image", "freeze", built["name"], seconds=BOOT_SECONDS_MAX)
    pool = {"TINYFAT_POOL": "here=1", "TINYFAT_POOL_RUNTIME": "echo", "TINYFAT_IMAGE": str(built["name"])}
    async with town(tmp_path, post, **virtual(free_port(), free_port()), **pool) as here:
        waiting: list[str] = []

        async def waits() -> bool:
            machines = (await here.operator.ask("GET", "fleet"))["machines"]
            waiting[:] = [machine["id"] for machine in machines if machine["pool"] == "ready"]
            return bool(waiting)

        await until(waits, BOOT_SECONDS_MAX, "a machine waits in the pool")
        server = await here.make("ada", "echo", "--location", "here", seconds=BOOT_SECONDS_MAX)
        assert [server.id] == waiting
        await here.ask("ada", "Is anybody there?")
        assert (await here.tinyfat.command("ssh", "ada", "--", "hostname", "-f")).strip() == f"ada.{DOMAIN}"
        await its_site_is_shown(here, server)
        await here.tinyfat.command("agent", "replace", "ada", seconds=BOOT_SECONDS_MAX)
        new = await here.server("ada")
        assert (new.id != server.id, new.ipv4) == (True, server.ipv4)
        await until(page_is(here, "hello.txt", PAGE), BOOT_SECONDS_MAX, "its site moved along")
        await its_site_is_ended(here, new)
        await its_site_is_shown(here, new)
        assert "instead of cloned" not in here.tinyfat.log.read_text()
        await here.tinyfat.command("agent", "destroy", "ada", "--yes")
        assert not listening_at(new.ipv4)
    assert "Traceback" not in here.tinyfat.log.read_text()


def virtual(box_port: int, relay_port: int) -> dict[str, str]:
    return {
        "TINYFAT_MACHINE": "local_vm",
        "TINYFAT_BOX_LISTEN": f"127.0.0.1:{box_port}",
        "TINYFAT_BOX_RELAY_LISTEN": f"127.0.0.1:{relay_port}",
    }


async def it_reaches_nothing_of_its_host_but_the_way_in(here: Town, way_in: tuple[int, ...]) -> None:
    """Seen from inside: at 10.0.2.2 it would find the operator's API, mail, the plain relay, and whatever else."""
    others = (here.tinyfat.http_port, here.tinyfat.smtp_port, here.tinyfat.relay_port)
    for port in (*others, *way_in):
        _, writer = await asyncio.open_connection("127.0.0.1", port)  # somebody listens
        writer.close()
    dial = 'timeout 5 bash -c "echo > /dev/tcp/10.0.2.2/$port" 2>/dev/null && echo $port'
    look = f"for port in {' '.join(map(str, (*others, *way_in)))}; do {dial}; done; true"
    said = await here.tinyfat.command("ssh", "ada", "--why", "to scan", "--", "bash", "-c", look)
    assert {int(word) for word in said.split()} == set(way_in)


async def its_site_is_shown(here: Town, server: Server) -> None:
    """From inside the machine, through the port that QEMU forwards, under its name and a certificate of ours."""
    assert listening_at(server.ipv4) == [22]
    await here.tinyfat.command("agent", "publish", server.agent, seconds=BOOT_SECONDS_MAX)
    await on_it(here, f"umask 077 && echo '{PAGE.strip()}' >{PUBLIC_FOLDER}/hello.txt")
    assert await page(here, "hello.txt") == (200, PAGE)
    assert (await page(here, "../box.json"))[0] == 404
    assert listening_at(server.ipv4) == [22, 443]


async def its_site_is_ended(here: Town, server: Server) -> None:
    await here.tinyfat.command("agent", "unpublish", server.agent, seconds=BOOT_SECONDS_MAX)
    assert listening_at(server.ipv4) == [22]
    with pytest.raises(OSError):  # as the world sees it: nobody is there
        await asyncio.open_connection(server.ipv4, 443)
    assert (await on_it(here, "systemctl is-active tinyfat-site; ls /etc/tinyfat-site; true")).startswith("inactive")


async def it_ends_and_leaves_nothing(here: Town, server: Server) -> None:
    """No process, no disk, no port."""
    its = processes(here.hosts)
    assert [process.name() for process in its] == ["qemu-system-x86_64"]
    assert listening_at(server.ipv4)
    await here.tinyfat.command("agent", "destroy", server.agent, "--yes")

    async def gone() -> bool:
        return not alive(its)

    await until(gone, GONE_SECONDS_MAX, "its QEMU is gone")
    assert list((here.hosts / "machines").iterdir()) == []
    assert leases(here.hosts) == {}
    assert not listening_at(server.ipv4)
    assert await here.dig(f"{server.agent}.{DOMAIN}") == []


def listening_at(ipv4: str) -> list[int]:
    """Ports, by the kernel's own list: a scan of loopback would find whoever listens on every address."""
    hexadecimal = "".join(f"{int(part):02X}" for part in reversed(ipv4.split(".")))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listen = "0A"
    return sorted(int(row[1].split(":")[1], 16) for row in rows if row[3] == listen and row[1].startswith(hexadecimal))
