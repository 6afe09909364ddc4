"""An image made at the provider: a builder, its snapshot, a trial, and an agent that lives on it.

At a stand-in whose servers are containers of systemd, by the vendor's client and the command line, while TinyFat runs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.running import free_port
from tests.stories.servers_town import HETZNER_TOKEN, Town, hetzner, need_machines, town
from tests.stories.test_servers import billed, it_ends_and_leaves_nothing
from tests.stories.town import PostOffice
from tinyfat.drivers.machines.nspawn import images_folder
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.networks import Bridge
from tinyfat.settings import Settings

pytestmark = pytest.mark.nspawn

MEMORY_MB = {"echo": 1024, "openclaw": 4096}
BUILD_SECONDS_MAX = 900.0  # OpenClaw starts twice
# Of the builder alone; as globs in the image's own layer.
FORGOTTEN = (
    *("etc/tinyfat/*.json", "etc/tinyfat/*.key", "etc/tinyfat/*.pem", "etc/ssh/ssh_host_*", "etc/ssh/tinyfat/*"),
    *("var/lib/tinyfat/*", "root/.ssh/*", "home/*/.ssh/*", "var/log/*.log", "var/log/journal/*/*"),
    *("var/lib/cloud/instances/*/*", "var/lib/cloud/data/*", "etc/systemd/system/tinyfat-*"),
)
KEPT = ("opt/tinyfat/box/current", "etc/nftables.conf", "etc/tinyfat/input.nft")


@pytest.fixture
async def post() -> AsyncIterator[PostOffice]:
    async with PostOffice() as office:
        yield office


@pytest.mark.parametrize("runtime", ["echo", pytest.param("openclaw", marks=pytest.mark.long)])
async def test_an_image_is_made_at_hetzner_and_an_agent_lives_on_it(
    runtime: str, tmp_path: Path, post: PostOffice
) -> None:
    need_machines()
    from tests.machine_hosts.base_image import base_image  # only here: it may take a minute

    plain = await base_image(ImageFolder(tmp_path / "plain"))
    machines = tmp_path / "hetzner" / "machines"
    gateway = (await Bridge(machines).subnet()).gateway.ipv4
    port, reception = free_port(), free_port()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(hetzner(tmp_path / "hetzner", plain, MEMORY_MB[runtime]))
        settings = {
            "TINYFAT_MACHINE": "hetzner",
            "TINYFAT_HETZNER_URL": url,
            "TINYFAT_HETZNER_TOKEN": HETZNER_TOKEN,
            "TINYFAT_BOX_LISTEN": f"0.0.0.0:{port}",
            "TINYFAT_BOX_URL": f"https://{gateway}:{port}",
            "TINYFAT_BOX_RELAY_LISTEN": f"0.0.0.0:{free_port()}",
        }
        here = await stack.enter_async_context(town(tmp_path, post, machines, **settings))
        began = time.monotonic()
        made = await here.tinyfat.json(
            *("image", "build", "--driver", "hetzner", "--runtime", runtime),
            *("--listen", f"0.0.0.0:{reception}", "--url", f"https://{gateway}:{reception}"),
            seconds=BUILD_SECONDS_MAX,
        )
        print(f"built and tried in {time.monotonic() - began:.0f} s")
        try:
            assert await billed(url) == []
            assert [one["name"] for one in await here.tinyfat.json("image", "list", "--driver", "hetzner")] == [
                made["name"]
            ]
            await nothing_of_the_builder_is_in_it(url)
            server = await here.make("ada", runtime, "--image", made["name"])
            _, said = await here.ask("ada", "The boat is called Nordlicht.", "Boat")
            assert said.strip()
            await it_ends_and_leaves_nothing(here, server)
        finally:
            assert "removed" in await pruned(here)
        assert await here.tinyfat.json("image", "list", "--driver", "hetzner") == []
        assert await billed(url) == []


async def pruned(here: Town) -> str:
    return await here.tinyfat.command("image", "prune", "--driver", "hetzner", "--keep", "0", "--yes")


async def nothing_of_the_builder_is_in_it(url: str) -> None:
    headers = {"Authorization": f"Bearer {HETZNER_TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        (snapshot,) = (await http.get(f"{url}/images", params={"type": "snapshot"})).json()["images"]
    (content,) = images_folder(Settings().cache).glob(f"*-image-{snapshot['id']}/content")
    found = [str(path) for glob in FORGOTTEN for path in content.glob(glob) if path.is_file() and path.stat().st_size]
    assert found == []
    assert (content / "etc/machine-id").read_text() == ""
    assert [path for path in KEPT if not (content / path).exists()] == []
