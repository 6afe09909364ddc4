"""Bridges and their subnets, with an `ip` that is an object here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tinyfat.machine_hosts import networks
from tinyfat.machine_hosts.machine_host import HostRefused
from tinyfat.machine_hosts.networks import Bridge


class Ip:
    """What `ip` knows: the addresses of each interface."""

    def __init__(self) -> None:
        self.links: dict[str, list[str]] = {"lo": ["127.0.0.1"]}

    async def run(self, argv: Sequence[str]) -> str:
        match list(argv):
            case ["ip", "-j", "addr", "show"]:
                shown = [
                    {"ifname": name, "addr_info": [{"local": one} for one in addresses]}
                    for name, addresses in self.links.items()
                ]
                return json.dumps(shown)
            case ["ip", "link", "add", name, "type", "bridge"]:
                self.links[name] = []
            case ["ip", "link", "del", name]:
                del self.links[name]
            case ["ip", "addr", "replace", address, "dev", name, *_]:
                self.links[name].append(address.partition("/")[0])
        return ""


@pytest.fixture
def ip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ip:
    made = Ip()
    monkeypatch.setattr(networks, "run", made.run)
    monkeypatch.setattr(networks, "_LOCK", tmp_path / "lock")
    return made


async def test_a_subnet_is_kept_and_unlike_any_other(ip: Ip, tmp_path: Path) -> None:
    one, other = Bridge(tmp_path / "one"), Bridge(tmp_path / "other")
    subnet = await one.up()
    assert subnet.gateway.ipv4 in ip.links[one.name] and (await one.up()) == subnet
    assert (await other.up()).number != subnet.number
    await one.down()
    assert one.name not in ip.links and (await Bridge(tmp_path / "one").up()) == subnet


async def test_a_subnet_that_another_took_is_left_to_it_where_nobody_has_an_address(ip: Ip, tmp_path: Path) -> None:
    bridge = Bridge(tmp_path / "one")
    before = await bridge.up()
    await bridge.down()
    ip.links["tinyfat-strange"] = [before.gateway.ipv4]
    with pytest.raises(HostRefused, match="tinyfat-strange by now"):
        await bridge.up()
    after = await bridge.up(movable=True)
    assert after != before and after.gateway.ipv4 in ip.links[bridge.name]
    assert (await bridge.up()) == after
