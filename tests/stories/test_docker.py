"""An agent in a container of a Docker engine, from beginning to end: made, written to, its control plane killed, ended.

`make machines`. The engine is Debian's own, started for the test; the container is in this host's network.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.machine_hosts.docker_daemon import docker_daemon
from tests.running import TinyFat, letter
from tests.stories.servers_town import program
from tests.stories.town import House, Operator, PostOffice, new_id
from tinyfat.drivers.machines.docker import MACHINE_LABEL

pytestmark = pytest.mark.docker

IMAGE_SECONDS_MAX = 900.0
REPLY_SECONDS_MAX = 60.0


async def test_an_agent_in_a_container_from_beginning_to_end(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    async with docker_daemon(engine) as url, PostOffice() as office:
        image = await image_in(url, tmp_path)
        settings = {"TINYFAT_MACHINE": "docker", "TINYFAT_DOCKER_URL": url, "TINYFAT_IMAGE": image}
        smarthost = f"127.0.0.1:{office.port}"
        tinyfat = TinyFat(tmp_path / "home", TINYFAT_SMARTHOST=smarthost, **settings)
        async with tinyfat, Operator(tinyfat) as operator:
            house = House(tinyfat, office, operator)
            agent = await tinyfat.make_agent("ada")
            assert agent["machine"]["kind"] == "docker"
            first = await answered(house, "The boat is called Nordlicht.")
            (container,) = await containers(url)
            assert await secrets_shown(url, container) == []
            await tinyfat.kill()
            await tinyfat.start()
            said = await answered(house, "And now?", in_reply_to=first[0])
            assert "Your first message here began: The boat is called Nordlicht." in said[1]
            assert await containers(url) == [container]  # it ran on meanwhile
            await tinyfat.command("agent", "destroy", "ada", "--yes")
            assert await containers(url) == []
        assert "Traceback" not in tinyfat.log.read_text()


async def image_in(url: str, folder: Path) -> str:
    builder = TinyFat(folder / "builder", TINYFAT_DOCKER_URL=url)
    built = await builder.json("image", "build", "--runtime", "echo", "--driver", "docker", seconds=IMAGE_SECONDS_MAX)
    return str(built["name"])


async def answered(house: House, text: str, **more: str) -> tuple[str, str]:
    """(the mail's Message-ID, the text of the reply)."""
    message_id = new_id()
    assert (await house.tinyfat.send(letter(text, message_id=message_id, **more))).startswith("2")
    return message_id, (await house.office.reply_to(message_id, REPLY_SECONDS_MAX)).text


async def containers(url: str) -> list[str]:
    """Ids of ours, running or not."""
    said = await program("docker", "-H", url, "ps", "-aq", "--no-trunc", "--filter", f"label={MACHINE_LABEL}")
    return said.split()


async def secrets_shown(url: str, container: str) -> list[str]:
    """What the engine shows to whoever may ask it and only the box should know."""
    shown = await program("docker", "-H", url, "inspect", container)
    box = json.loads(await program("docker", "-H", url, "exec", container, "cat", "/var/lib/tinyfat/box/box.json"))
    return [box["link_token"]] if box["link_token"] in shown else []
