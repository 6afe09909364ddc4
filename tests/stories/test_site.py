"""What an owner publishes, on real machines: Caddy behind the firewall, names, certificates; and nothing besides.

`make story-vm`. Root, Debian: containers of systemd; curl, dig, a scan of every port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.running import CommandError, until
from tests.stories.servers_town import (
    DOMAIN,
    PROGRAM_SECONDS_MAX,
    READY_SECONDS_MAX,
    Server,
    Town,
    need_machines,
    program,
    town,
)
from tests.stories.test_server_enrolment import open_ports
from tests.stories.town import PostOffice
from tinyfat.domain.enrolment import PUBLIC_FOLDER
from tinyfat.server_wiring import SITES_AUTHORITY_FILE

pytestmark = pytest.mark.nspawn

NAME = f"ada.{DOMAIN}"


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


async def test_a_site_is_shown_moves_along_and_ends(tmp_path: Path, post: PostOffice) -> None:
    need_machines()
    async with town(tmp_path, post) as here:
        server = await here.make("ada", "echo", "--image", await here.image("echo"))
        assert f"https://{NAME}/" in here.welcome("ada")
        await only_these_are_open(server, 22)
        await here.tinyfat.command("agent", "publish", "ada", seconds=READY_SECONDS_MAX)
        assert f"https://{NAME}/" in await here.tinyfat.command("agent", "show", "ada")
        await it_shows_what_lies_in_its_folder_and_nothing_else(here)
        await only_these_are_open(server, 22, 443)
        await it_is_there_again_after_a_restart(here)
        await here.tinyfat.command("agent", "replace", "ada", seconds=READY_SECONDS_MAX)
        new = await here.server("ada")
        assert (new.id != server.id, new.ipv4) == (True, server.ipv4)
        await until(
            page_is(here, "hello.txt", "The boat is called Nordlicht.\n"), PROGRAM_SECONDS_MAX, "it moved along"
        )
        await only_these_are_open(new, 22, 443)
        await here.tinyfat.command("agent", "unpublish", "ada", seconds=READY_SECONDS_MAX)
        await only_these_are_open(new, 22)
        assert (await on_it(here, f"cat {PUBLIC_FOLDER}/hello.txt")) == "The boat is called Nordlicht.\n"
        assert (await on_it(here, "ls /etc/tinyfat-site; true")).startswith("ls: cannot access")
        await here.tinyfat.command("agent", "publish", "ada", seconds=READY_SECONDS_MAX)
        assert (await page(here, "hello.txt")) == (200, "The boat is called Nordlicht.\n")


async def it_shows_what_lies_in_its_folder_and_nothing_else(here: Town) -> None:
    """Files as an agent makes them, readable by itself alone; a link leads nowhere."""
    await on_it(
        here,
        f"cd {PUBLIC_FOLDER} && umask 077 && echo 'The boat is called Nordlicht.' >hello.txt && echo secret >.env && "
        "ln -s /etc/tinyfat-site/site.key key && ln -s /etc/shadow shadow && ln -s ../../box.json own",
    )
    assert await page(here, "hello.txt") == (200, "The boat is called Nordlicht.\n")
    for name in ("", ".env", "../box.json", "%2e%2e/%2e%2e/box.json", "nothing.txt"):
        assert (await page(here, name))[0] == 404, name
    for link in ("key", "shadow", "own"):
        assert await page(here, link) == (500, ""), link


async def it_is_there_again_after_a_restart(here: Town) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id; systemctl show -P ActiveEnterTimestampMonotonic basic.target"
    before = await on_it(here, boot)
    with suppress(CommandError):  # the connection ends with it
        await here.tinyfat.command("ssh", "ada", "--", "sudo", "-n", "systemctl", "reboot")

    async def again() -> bool:
        try:
            return await on_it(here, boot) != before
        except CommandError:
            return False

    await until(again, PROGRAM_SECONDS_MAX, "it has started again")
    await until(page_is(here, "hello.txt", "The boat is called Nordlicht.\n"), PROGRAM_SECONDS_MAX, "its site too")
    assert await on_it(here, "systemctl is-active tinyfat-identity.timer") == "active\n"


async def only_these_are_open(server: Server, *ports: int) -> None:
    assert await asyncio.to_thread(open_ports, server.ipv4) == list(ports)


async def on_it(here: Town, command: str) -> str:
    """As the agent's runtime would; by the operator's own way in."""
    argv = ("sudo", "-n", "-u", "tinyfat", "sh", "-c", f"({command}) 2>&1")
    return await here.tinyfat.command("ssh", "ada", "--", *argv)


async def page(here: Town, path: str) -> tuple[int, str]:
    """By curl, which believes our authority alone and is told the name by our DNS: (status, body)."""
    (address,) = await here.dig(NAME)
    authority = str(here.tinyfat.home / SITES_AUTHORITY_FILE)
    said = await program(
        "curl", "--silent", "--show-error", "--max-time", "10", "--path-as-is", "--cacert", authority,
        "--resolve", f"{NAME}:443:{address}", "--write-out", "\n%{http_code}", f"https://{NAME}/{path}",
    )  # fmt: skip
    body, _, status = said.rpartition("\n")
    return int(status), body


def page_is(here: Town, path: str, text: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        try:
            return await page(here, path) == (200, text)
        except AssertionError:  # nobody answers yet
            return False

    return look
