"""The stand-in with real machines: a server that was made through the vendor's client runs its user-data."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from tests.machine_speed import patient
from tests.running import until
from tests.standins.hetzner_api import Api, opened
from tinyfat.machine_hosts.images import ImageFolder
from tinyfat.machine_hosts.machine_host import MachineHost
from tinyfat.machine_hosts.nspawn import NspawnHost
from tinyfat.machine_hosts.qemu import QemuHost
from tinyfat.standins.hetzner.cloud import Cloud, Options
from tinyfat.standins.hetzner.state import restore, save

SECONDS = 480.0  # a virtual machine without KVM takes a minute to boot, on a busy host several
PORT = 443  # beside SSH the only one that QEMU forwards
MIB = 1024**2
USER_DATA = f"""#cloud-config
write_files:
- path: /etc/systemd/system/page.service
  content: |
    [Service]
    ExecStart=/usr/bin/python3 -m http.server {PORT} -b :: --directory /srv
    [Install]
    WantedBy=multi-user.target
runcmd:
- hostname >/srv/page
- systemctl enable --now page
"""


NSPAWN = pytest.param("nspawn", marks=pytest.mark.nspawn)
LOCAL_VM = pytest.param("local_vm", marks=pytest.mark.vm)


@pytest.fixture
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MachineHost]:
    program = {"nspawn": "systemd-nspawn", "local_vm": "qemu-system-x86_64"}[request.param]
    if os.geteuid() != 0 or shutil.which(program) is None:
        pytest.skip(f"real machines need root and {program}")
    from tests.machine_hosts.base_image import base_disk, base_image  # only here: it may take a minute

    images = tmp_path / "images"
    await (base_image if request.param == "nspawn" else base_disk)(ImageFolder(images))
    kind = NspawnHost if request.param == "nspawn" else QemuHost
    made: MachineHost = kind(tmp_path / "host", images, lambda: datetime.now(UTC))
    await made.open()
    yield made
    for machine in await made.machines():
        await made.destroy(machine.name)
    await made.close()


def cloud(host: MachineHost) -> Cloud:
    return Cloud(options=Options(action_seconds=0.01, memory_bytes_max=512 * MIB), host=host)


async def ended(api: Api, answer: dict[str, dict[str, int]]) -> None:
    async def look() -> bool:
        action = (await api.get(f"/actions/{answer['action']['id']}"))["action"]
        assert action["status"] != "error", action
        return bool(action["status"] == "success")

    await until(look, SECONDS, "the action ends")


async def page(ip: str) -> str:
    """What the machine's user-data has left to be fetched."""
    said = ""

    async def fetch() -> bool:
        nonlocal said
        try:
            async with httpx2.AsyncClient(timeout=patient(2)) as client:
                response = await client.get(f"http://{f'[{ip}]' if ':' in ip else ip}:{PORT}/page")
        except httpx2.HTTPError:
            return False
        said = response.text.strip()
        return response.status_code == 200

    await until(fetch, SECONDS, f"{ip} serves its page")
    return said


async def has_status(api: Api, number: int, status: str) -> None:
    async def look() -> bool:
        return bool((await api.get(f"/servers/{number}"))["server"]["status"] == status)

    await until(look, SECONDS, f"the server is {status}")


@pytest.mark.parametrize("host", [NSPAWN, LOCAL_VM], indirect=True)
async def test_a_server_is_a_machine_with_its_address_until_its_end(host: MachineHost, tmp_path: Path) -> None:
    async with opened(cloud=cloud(host)) as api:
        own, other = await api.address("ada"), await api.address("other")
        body = {"server_type": "cx23", "image": "debian-12", "location": "fsn1", "user_data": USER_DATA}
        net = {"ipv4": own["id"], "enable_ipv6": True}
        made = await api.post("/servers", name="ada.example.org", **body, public_net=net)
        await ended(api, made)
        number = made["server"]["id"]
        await has_status(api, number, "running")
        assert await page(own["ip"]) == "ada"
        six = (await api.get(f"/servers/{number}"))["server"]["public_net"]["ipv6"]["ip"]
        if six.endswith("/128"):  # the host has IPv6, and this is a machine's own
            assert await page(six.partition("/")[0]) == "ada"

        await api.post(f"/servers/{number}/actions/shutdown")
        await has_status(api, number, "off")
        await ended(api, await api.post(f"/primary_ips/{own['id']}/actions/unassign"))
        give = {"assignee_id": number, "assignee_type": "server"}
        await ended(api, await api.post(f"/primary_ips/{other['id']}/actions/assign", **give))
        image = await api.post(f"/servers/{number}/actions/create_image", type="snapshot", description="baked")
        await ended(api, image)
        await ended(api, await api.post(f"/servers/{number}/actions/poweron"))
        assert await page(other["ip"]) == "ada"
        save(api.cloud, tmp_path / "state")

    again = cloud(host)
    restore(again, tmp_path / "state")
    async with opened(cloud=again) as api:
        await has_status(api, number, "running")
        from_image = {**body, "image": str(image["image"]["id"]), "user_data": "#cloud-config\n"}
        second = await api.post("/servers", name="bob.example.org", **from_image, public_net={"ipv4": own["id"]})
        await ended(api, second)
        assert await page(own["ip"]) == "ada"  # as it was baked
        for each in (number, second["server"]["id"]):
            await has_status(api, each, "running")
            await ended(api, await api.delete(f"/servers/{each}"))
        for address in (own, other):
            await api.delete(f"/primary_ips/{address['id']}")
        truth = await api.truth()
        assert (truth["machines"], truth["addresses"]) == ([], [])
        assert await host.machines() == []


@pytest.mark.parametrize("host", [NSPAWN], indirect=True)
async def test_a_stop_that_is_a_lie_leaves_the_machine_running(host: MachineHost) -> None:
    async with opened(cloud=cloud(host)) as api:
        body = {"server_type": "cx23", "image": "debian-12", "location": "fsn1", "user_data": USER_DATA}
        made = await api.post("/servers", name="ada", **body)
        await ended(api, made)
        number = made["server"]["id"]
        await has_status(api, number, "running")
        ip = (await api.get(f"/servers/{number}"))["server"]["public_net"]["ipv4"]["ip"]
        await page(ip)
        await api.lie("stop-runs-on=1")
        await ended(api, await api.post(f"/servers/{number}/actions/poweroff"))
        assert await page(ip) == "ada"
        await api.lie("ip-changes=1")
        await ended(api, await api.post(f"/servers/{number}/actions/reset"))
        now = (await api.get(f"/servers/{number}"))["server"]["public_net"]["ipv4"]["ip"]
        assert now != ip
        assert await page(now) == "ada"
        await asyncio.gather(*api.cloud.work.values())
