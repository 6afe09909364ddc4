"""Firewalls: their rules, and the servers they are applied to, by hand or by label selector."""

from __future__ import annotations

import ipaddress
from typing import Any

from tinyfat.standins.hetzner import errors
from tinyfat.standins.hetzner.actions import begin, done, effect
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    actions_wire,
    basic_routes,
    find,
    take,
    take_labels,
    take_name,
    unused_name,
)
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.labels import selector
from tinyfat.standins.hetzner.resources import Action, Firewall
from tinyfat.standins.hetzner.views import firewall_wire, firewalls_of

FIREWALLS = Collection("firewalls", "firewall", firewall_wire)
RULES_MAX = 50
BLOCKS_MAX = 100
PER_SERVER_MAX = 5
PORT_MAX = 65535


async def create_firewall(call: Call) -> Answer:
    cloud, body = call.cloud, call.body
    name, labels, rules = unused_name(call, FIREWALLS, take_name(body)), take_labels(body), _rules(body)
    targets = _targets(cloud, body, "apply_to", 422)
    firewall = Firewall(cloud.next_id(), name, cloud.clock(), labels, rules)
    cloud.firewalls[firewall.id] = firewall
    started = [done(cloud, "set_firewall_rules", [("firewall", firewall.id)])] if rules else []
    started += [_apply(cloud, firewall, target) for target in targets]
    return Answer(201, {"firewall": firewall_wire(cloud, firewall), "actions": actions_wire(cloud, started)})


def _rules(body: Any) -> list[dict[str, Any]]:
    rules = take(body, "rules", list, [])
    if len(rules) > RULES_MAX:
        raise errors.invalid("rules", f"are more than {RULES_MAX}")
    return [_rule(each) for each in rules]


def _rule(rule: Any) -> dict[str, Any]:
    if not isinstance(rule, dict):
        raise errors.invalid("rules", "must be objects")
    direction, protocol = take(rule, "direction", str), take(rule, "protocol", str)
    if direction not in ("in", "out") or protocol not in ("tcp", "udp", "icmp", "esp", "gre"):
        raise errors.invalid("rules", "have an unknown direction or protocol")
    port = rule.get("port")
    if (protocol in ("tcp", "udp")) is not (port is not None) or not _is_port(port):
        raise errors.invalid("rules.port", "is needed for tcp and udp, and for them alone: 80 or 1024-5000")
    used, unused = ("source_ips", "destination_ips") if direction == "in" else ("destination_ips", "source_ips")
    if rule.get(unused) or not rule.get(used):
        raise errors.invalid(f"rules.{used}", f"is needed, and nothing but it, where the direction is {direction}")
    return {
        "direction": direction,
        "protocol": protocol,
        "port": port,
        used: _blocks(rule[used], used),
        unused: [],
        "description": rule.get("description"),
    }


def _is_port(port: object) -> bool:
    if port is None:
        return True
    ends = str(port).split("-")
    return 1 <= len(ends) <= 2 and all(end.isdecimal() and 0 < int(end) <= PORT_MAX for end in ends)


def _blocks(texts: Any, name: str) -> list[str]:
    try:
        networks = [ipaddress.ip_network(text) for text in texts]
    except (ValueError, TypeError) as error:
        raise errors.invalid(f"rules.{name}", f"must be CIDR blocks without host bits: {error}") from None
    if len(networks) > BLOCKS_MAX or any("/" not in text for text in texts):
        raise errors.invalid(f"rules.{name}", f"must be at most {BLOCKS_MAX} CIDR blocks")
    return [str(network) for network in networks]


def _targets(cloud: Cloud, body: Any, name: str, missing_status: int) -> list[int | str]:
    """Servers by id, label selectors by their text. Raises ApiError."""
    return [_target(cloud, each, missing_status) for each in take(body, name, list, [])]


def _target(cloud: Cloud, resource: Any, missing_status: int) -> int | str:
    if resource.get("type") == "label_selector":
        text = take(take(resource, "label_selector", dict), "selector", str)
        try:
            selector(text)
        except ValueError as error:
            raise errors.invalid("label_selector.selector", str(error)) from None
        return text
    number = take(take(resource, "server", dict), "id", int)
    server = cloud.servers.get(number)
    if server is None:
        raise errors.ApiError(missing_status, "firewall_resource_not_found", f"server {number} was not found")
    if server.ipv4 is None and server.ipv6 is None:
        raise errors.refused("private_net_only_server", "The server has no public interface")
    return number


def _apply(cloud: Cloud, firewall: Firewall, target: int | str) -> Action:
    resources = [("firewall", firewall.id)]
    if isinstance(target, str):
        firewall.selectors.append(target)
        return begin(cloud, "apply_firewall", resources)
    cloud.servers[target].firewalls[firewall.id] = "pending"
    return begin(cloud, "apply_firewall", [*resources, ("server", target)])


@effect("apply_firewall")
def _applied(cloud: Cloud, action: Action) -> None:
    numbers = dict(action.resources)
    server = cloud.servers.get(numbers.get("server", 0))
    if server is not None and numbers["firewall"] in server.firewalls:
        server.firewalls[numbers["firewall"]] = "applied"


async def apply_to_resources(call: Call) -> Answer:
    cloud, firewall = call.cloud, find(call, FIREWALLS)
    targets = _targets(cloud, call.body, "apply_to", 404)
    for target in targets:
        applied = firewall.selectors if isinstance(target, str) else [*cloud.servers[target].firewalls]
        if (target if isinstance(target, str) else firewall.id) in applied:
            raise errors.refused("firewall_already_applied", "Firewall is already applied to resource")
        if isinstance(target, int) and len(firewalls_of(cloud, cloud.servers[target])) >= PER_SERVER_MAX:
            raise errors.limit("firewalls_per_server")
    return Answer(201, {"actions": actions_wire(cloud, [_apply(cloud, firewall, target) for target in targets])})


async def remove_from_resources(call: Call) -> Answer:
    cloud, firewall = call.cloud, find(call, FIREWALLS)
    targets = _targets(cloud, call.body, "remove_from", 404)
    for target in targets:
        applied = firewall.selectors if isinstance(target, str) else [*cloud.servers[target].firewalls]
        if (target if isinstance(target, str) else firewall.id) not in applied:
            _not_by_hand(cloud, firewall, target)
    started = [
        begin(
            cloud,
            "remove_firewall",
            [("firewall", firewall.id), *([] if isinstance(target, str) else [("server", target)])],
            {"selector": target if isinstance(target, str) else ""},
        )
        for target in targets
    ]
    return Answer(201, {"actions": actions_wire(cloud, started)})


def _not_by_hand(cloud: Cloud, firewall: Firewall, target: int | str) -> None:
    if isinstance(target, int) and firewall.id in firewalls_of(cloud, cloud.servers[target]):
        raise errors.refused("firewall_managed_by_label_selector", "Firewall is applied via a label selector")
    raise errors.ApiError(404, "firewall_resource_not_found", "The firewall is not applied to the resource")


@effect("remove_firewall")
def _removed(cloud: Cloud, action: Action) -> None:
    numbers = dict(action.resources)
    firewall = cloud.firewalls.get(numbers["firewall"])
    text, server = action.arguments["selector"], cloud.servers.get(numbers.get("server", 0))
    if firewall is not None and text in firewall.selectors:
        firewall.selectors.remove(text)
    if server is not None:
        server.firewalls.pop(numbers["firewall"], None)


async def set_rules(call: Call) -> Answer:
    cloud, firewall = call.cloud, find(call, FIREWALLS)
    take(call.body, "rules", list)
    firewall.rules = _rules(call.body)
    resources = [("firewall", firewall.id)]
    started = [begin(cloud, "set_firewall_rules", resources)]
    for server in cloud.servers.values():
        if firewall.id in firewalls_of(cloud, server):
            started.append(begin(cloud, "apply_firewall", [*resources, ("server", server.id)]))
    return Answer(201, {"actions": actions_wire(cloud, started)})


async def delete_firewall(call: Call) -> Answer:
    cloud, firewall = call.cloud, find(call, FIREWALLS)
    if any(firewall.id in firewalls_of(cloud, server) for server in cloud.servers.values()):
        raise errors.refused("resource_in_use", "Firewall still applied to a resource")
    cloud.bury("firewalls", firewall_wire(cloud, firewall))
    del cloud.firewalls[firewall.id]
    return Answer(204)


_path = "/firewalls/{id}/actions"
ROUTES: list[ApiRoute] = [
    ("POST", "/firewalls", create_firewall),
    ("DELETE", "/firewalls/{id}", delete_firewall),
    ("POST", f"{_path}/apply_to_resources", apply_to_resources),
    ("POST", f"{_path}/remove_from_resources", remove_from_resources),
    ("POST", f"{_path}/set_rules", set_rules),
    *basic_routes(FIREWALLS),
]
