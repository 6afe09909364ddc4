"""What is for sale, and actions: the part of the API that only answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tinyfat.standins.hetzner import catalogue, errors
from tinyfat.standins.hetzner.calls import Answer, ApiRoute, Call, Handler, Wire, page
from tinyfat.standins.hetzner.resources import Action
from tinyfat.standins.hetzner.views import action_wire

# The collections that have actions, and what an action calls their resources.
KINDS = {
    "servers": "server",
    "primary_ips": "primary_ip",
    "firewalls": "firewall",
    "volumes": "volume",
    "images": "image",
}


def _list(key: str, items: Sequence[Any], wire: Callable[[Any], Wire]) -> Handler:
    async def handler(call: Call) -> Answer:
        return page(call, key, [wire(item) for item in items])

    return handler


def _get(key: str, items: Sequence[Any], wire: Callable[[Any], Wire]) -> Handler:
    async def handler(call: Call) -> Answer:
        found = next((item for item in items if str(item.id) == call.path["id"]), None)
        if found is None:
            raise errors.not_found(key, call.path["id"])
        return Answer(200, {key: wire(found)})

    return handler


def _datacenter(location: catalogue.Location) -> Wire:
    return catalogue.datacenter_wire(location.name)


async def datacenters(call: Call) -> Answer:
    listed = page(call, "datacenters", [_datacenter(each) for each in catalogue.LOCATIONS])
    recommended = {"recommendation": catalogue.LOCATIONS[0].id}
    return replace(listed, body={**(listed.body or {}), **recommended})


async def pricing(call: Call) -> Answer:
    return Answer(200, {"pricing": catalogue.pricing_wire()})


async def get_action(call: Call) -> Answer:
    text = call.path.get("action_id") or call.path["id"]
    action = call.cloud.actions.get(int(text)) if text.isdecimal() else None
    if action is None:
        raise errors.not_found("action", text)
    return Answer(200, {"action": action_wire(call.cloud, action)})


async def actions_by_id(call: Call) -> Answer:
    if not call.query.get("id"):
        announcement = "https://docs.hetzner.cloud/changelog#2025-01-30-listing-arbitrary-actions-is-removed"
        details = {"announcement": announcement}
        raise errors.ApiError(410, "deprecated_api_endpoint", "the id parameter is needed", details)
    return page_of_actions(call, list(call.cloud.actions.values()))


def _actions_of_kind(kind: str) -> Handler:
    async def handler(call: Call) -> Answer:
        return page_of_actions(call, [a for a in call.cloud.actions.values() if any(k == kind for k, _ in a.resources)])

    return handler


def _actions_of_one(kind: str) -> Handler:
    async def handler(call: Call) -> Answer:
        text = call.path["id"]
        wanted = (kind, int(text) if text.isdecimal() else 0)
        return page_of_actions(call, [a for a in call.cloud.actions.values() if wanted in a.resources])

    return handler


def page_of_actions(call: Call, actions: Sequence[Action]) -> Answer:
    return page(call, "actions", [action_wire(call.cloud, action) for action in actions])


def _action_routes(collection: str, kind: str) -> list[ApiRoute]:
    """The lists of all actions stand before those of one resource: `actions` is no id."""
    return [
        ("GET", f"/{collection}/actions", _actions_of_kind(kind)),
        ("GET", f"/{collection}/actions/{{id}}", get_action),
        ("GET", f"/{collection}/{{id}}/actions", _actions_of_one(kind)),
        ("GET", f"/{collection}/{{id}}/actions/{{action_id}}", get_action),
    ]


_SOLD: list[tuple[str, str, Sequence[Any], Callable[[Any], Wire]]] = [
    ("locations", "location", catalogue.LOCATIONS, catalogue.location_wire),
    ("server_types", "server_type", catalogue.SERVER_TYPES, catalogue.server_type_wire),
]
ROUTES: list[ApiRoute] = [
    ("GET", "/pricing", pricing),
    ("GET", "/actions", actions_by_id),
    ("GET", "/actions/{id}", get_action),
    *[("GET", f"/{plural}", _list(plural, items, wire)) for plural, _, items, wire in _SOLD],
    ("GET", "/datacenters", datacenters),
    ("GET", "/datacenters/{id}", _get("datacenter", catalogue.LOCATIONS, _datacenter)),
    *[("GET", f"/{plural}/{{id}}", _get(one, items, wire)) for plural, one, items, wire in _SOLD],
    *[route for collection, kind in KINDS.items() for route in _action_routes(collection, kind)],
    ("GET", "/zones/actions", _actions_of_kind("zone")),
    ("GET", "/zones/actions/{id}", get_action),
    ("GET", "/zones/{id_or_name}/actions/{action_id}", get_action),
]
