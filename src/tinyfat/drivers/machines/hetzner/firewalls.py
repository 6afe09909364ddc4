"""What of a server is open to the world: SSH, what is published, ping; nothing else.

A project has room for 50 firewalls (docs.hetzner.com, "Firewalls FAQ"), so there is one for each set of rules and not
for each server: its name says what is in it, and it is never changed but put right.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from typing import Any, cast

from hcloud import Client
from hcloud.firewalls import BoundFirewall, Firewall, FirewallResource, FirewallRule
from hcloud.servers import Server as ApiServer

from tinyfat.drivers.hetzner_cloud import AlreadyThere, Busy, HetznerCloud
from tinyfat.drivers.machines.hetzner.labels import Labels
from tinyfat.drivers.machines.hetzner.seen import Server, the_id

EVERYWHERE = ("0.0.0.0/0", "::/0")
NETWORKS_MAX = 100  # in one rule

Rule = tuple[str, str, tuple[str, ...]]  # protocol, port ("" for ICMP), from where


def rules_of(ssh_networks: Sequence[str], published: bool) -> tuple[Rule, ...]:
    """Pure. Longer lists of networks go into several rules."""
    networks = tuple(sorted({str(ipaddress.ip_network(one, strict=False)) for one in ssh_networks}))
    ssh = [("tcp", "22", networks[n : n + NETWORKS_MAX]) for n in range(0, len(networks), NETWORKS_MAX)]
    web = [("tcp", "443", EVERYWHERE)] if published else []
    return (*ssh, *web, ("icmp", "", EVERYWHERE))


class Firewalls:
    def __init__(self, cloud: HetznerCloud, labels: Labels) -> None:
        self._cloud, self._labels = cloud, labels

    async def ensure(self, ssh_networks: Sequence[str], published: bool) -> int:
        """Its id. Raises Refused, Unreachable."""
        rules = rules_of(ssh_networks, published)
        name = self._name(rules)
        try:
            return await self._cloud.call(f"make the firewall {name}", lambda client: self._make(client, name, rules))
        except AlreadyThere as error:  # made by somebody else a moment ago
            raise Busy(str(error)) from None

    async def put_on(self, server: Server, firewall_id: int) -> None:
        """This one and no other."""
        if server.firewalls == {firewall_id}:
            return
        resource = FirewallResource(FirewallResource.TYPE_SERVER, ApiServer(server.id))

        def put(client: Client) -> None:
            if firewall_id not in server.firewalls:
                client.firewalls.apply_to_resources(Firewall(firewall_id), [resource])
            for other in server.firewalls - {firewall_id}:
                client.firewalls.remove_from_resources(Firewall(other), [resource])

        await self._cloud.call(f"put the firewall on {server.name}", put)

    def _name(self, rules: tuple[Rule, ...]) -> str:
        content = json.dumps([self._labels.installation, rules]).encode()
        return f"tinyfat-{hashlib.sha256(content).hexdigest()[:16]}"

    def _make(self, client: Client, name: str, rules: tuple[Rule, ...]) -> int:
        wanted = [FirewallRule("in", protocol, list(ips), port or None) for protocol, port, ips in rules]
        found = client.firewalls.get_by_name(name)
        if found is None:
            labels = cast(Any, self._labels.all_of())  # its type says str, its documentation a dictionary
            return the_id(client.firewalls.create(name, wanted, labels).firewall.id)
        if _rules_in(found) != rules:
            client.firewalls.set_rules(found, wanted)
        return the_id(found.id)


def _rules_in(firewall: BoundFirewall) -> tuple[Rule, ...]:
    return tuple((rule.protocol, rule.port or "", tuple(sorted(rule.source_ips))) for rule in firewall.rules or [])
