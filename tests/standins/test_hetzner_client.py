"""The vendor's own client, unchanged, over a socket."""

from __future__ import annotations

import asyncio

import pytest
from hcloud import APIException, Client
from hcloud.firewalls import FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import ServerCreatePublicNetwork
from hcloud.zones import ZoneRecord

from tests.machine_speed import patient
from tests.standins.hetzner_api import KEY
from tinyfat.standins.hetzner.cloud import Cloud, Options
from tinyfat.standins.hetzner.server import Standin, hetzner_app
from tinyfat.standins.serving import served

TOKEN = "token"


def whole_life(client: Client) -> None:
    key = client.ssh_keys.create("ada", KEY, labels={"agent": "ada"})
    place = Location(name="nbg1")
    made = client.primary_ips.create(type="ipv4", name="ada", location=place, auto_delete=False)
    address = made.primary_ip
    rule = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["0.0.0.0/0", "::/0"])
    firewall = client.firewalls.create("ada", [rule]).firewall
    response = client.servers.create(
        "ada.example.org",
        ServerType(name="cx23"),
        Image(name="debian-12"),
        ssh_keys=[key],
        firewalls=[firewall],
        location=place,
        labels={"agent": "ada"},
        user_data="#cloud-config",
        public_net=ServerCreatePublicNetwork(ipv4=address, enable_ipv6=True),
    )
    response.action.wait_until_finished()
    for action in response.next_actions:
        action.wait_until_finished()
    server = client.servers.get_by_name("ada.example.org")
    assert server is not None
    assert server.status == "running"
    assert server.public_net.ipv4.ip == address.ip
    assert [each.name for each in client.servers.get_all(label_selector="agent in (ada,bob),!pool")] == [server.name]
    server.change_dns_ptr(address.ip, server.name).wait_until_finished()
    server.power_off().wait_until_finished()
    image = server.create_image("baked", type="snapshot", labels={"v": "1"})
    image.action.wait_until_finished()
    assert client.images.get_all(type="snapshot", label_selector="v=1")[0].status == "available"
    address.unassign().wait_until_finished()
    address.assign(server.id, "server").wait_until_finished()
    server.power_on().wait_until_finished()
    with pytest.raises(APIException, match="uniqueness_error"):
        client.servers.create("ada.example.org", ServerType(name="cx23"), Image(name="debian-12"))
    server.delete().wait_until_finished()
    assert client.servers.get_by_name("ada.example.org") is None
    for each in (image.image, firewall, address, key):
        each.delete()
    assert client.primary_ips.get_all() == []


def records(client: Client) -> None:
    response = client.zones.create(name="example.org", mode="primary", ttl=300)
    response.action.wait_until_finished()
    made = response.zone.create_rrset(name="ada", type="A", records=[ZoneRecord("192.0.2.1")], ttl=60)
    made.action.wait_until_finished()
    made.rrset.set_rrset_records([ZoneRecord("192.0.2.2")]).wait_until_finished()
    assert [each.id for each in response.zone.get_rrset_all()] == ["@/SOA", "@/NS", "ada/A"]
    made.rrset.delete_rrset().action.wait_until_finished()
    response.zone.delete().action.wait_until_finished()


async def test_a_servers_whole_life_and_a_zones() -> None:
    standin = Standin(Cloud(options=Options(action_seconds=0.01)), TOKEN)
    async with served(hetzner_app(standin)) as url:
        client = Client(TOKEN, api_endpoint=f"{url}/v1", poll_interval=0.01, timeout=patient(10))
        try:
            await asyncio.to_thread(whole_life, client)
            await asyncio.to_thread(records, client)
        finally:
            client._client._session.close()


async def test_prices_and_places_are_read_by_the_client() -> None:
    standin = Standin(Cloud(), TOKEN)
    async with served(hetzner_app(standin)) as url:
        client = Client(TOKEN, api_endpoint=f"{url}/v1", timeout=patient(10))

        def read() -> None:
            small = client.server_types.get_by_name("cx23")
            assert small is not None
            assert {price["location"] for price in small.prices} == {"fsn1", "nbg1", "hel1"}
            assert client.locations.get_by_name("fsn1") is not None
            assert client.images.get_by_name_and_architecture("debian-12", "x86") is not None

        try:
            await asyncio.to_thread(read)
        finally:
            client._client._session.close()
