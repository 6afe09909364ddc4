"""DNS zones. Their records are in rrsets.py."""

from __future__ import annotations

import re
from typing import Any

import dns.exception
import dns.name
import dns.zone

from tinyfat.standins.hetzner import errors
from tinyfat.standins.hetzner.actions import begin, effect
from tinyfat.standins.hetzner.calls import (
    Answer,
    ApiRoute,
    Call,
    Collection,
    acted,
    lister,
    take,
    take_labels,
)
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import Action, Rrset, Zone
from tinyfat.standins.hetzner.sold import page_of_actions
from tinyfat.standins.hetzner.views import NAME_SERVERS, action_wire, zone_wire
from tinyfat.standins.hetzner.zone_values import (
    APEX,
    as_dns,
    checked_name,
    checked_type,
    take_records,
    take_ttl,
    zone_file,
)

ZONES = Collection("zones", "zone", zone_wire)
TTL_SECONDS_DEFAULT = 3600
SOA_NUMBERS = "86400 10800 3600000 3600"
_zone_name = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")


def find_zone(call: Call) -> Zone:
    wanted = call.path["id_or_name"]
    for zone in call.cloud.zones.values():
        if wanted in (str(zone.id), zone.name):
            return zone
    raise errors.not_found("zone", wanted)


def primary_zone(call: Call) -> Zone:
    zone = find_zone(call)
    if zone.mode != "primary":
        raise errors.refused("incorrect_zone_mode", "This operation is not supported for this zone's mode")
    return zone


def sets_of(cloud: Cloud, zone: Zone) -> list[Rrset]:
    return [each for each in cloud.rrsets.values() if each.zone == zone.id]


async def create_zone(call: Call) -> Answer:
    cloud, body = call.cloud, call.body
    name, mode = take(body, "name", str), take(body, "mode", str)
    if not _zone_name.fullmatch(name) or mode not in ("primary", "secondary"):
        raise errors.invalid("name", "must be a domain in lower case, without a dot at its end")
    if any(zone.name == name for zone in cloud.zones.values()):
        raise errors.taken("zone", "name")
    ttl = take_ttl(body) or TTL_SECONDS_DEFAULT
    zone = Zone(cloud.next_id(), name, cloud.clock(), ttl, take_labels(body), mode)
    sets = [] if mode == "secondary" else _first_sets(cloud, zone, body)
    cloud.zones[zone.id] = zone
    cloud.rrsets |= {each.id: each for each in sets}
    action = begin(cloud, "create_zone", [("zone", zone.id)])
    return Answer(201, {"zone": zone_wire(cloud, zone), "action": action_wire(cloud, action)})


def add_zone(cloud: Cloud, name: str) -> None:
    """A primary zone that is there from the beginning; nothing where there is one of this name. Raises ValueError."""
    if not _zone_name.fullmatch(name):
        raise ValueError(f"{name!r} is no domain in lower case, such as agents.example")
    if any(zone.name == name for zone in cloud.zones.values()):
        return
    zone = Zone(cloud.next_id(), name, cloud.clock(), TTL_SECONDS_DEFAULT, {}, "primary")
    cloud.zones[zone.id] = zone
    cloud.rrsets |= {each.id: each for each in _own_sets(cloud, zone)}


def _first_sets(cloud: Cloud, zone: Zone, body: Any) -> list[Rrset]:
    if text := take(body, "zonefile", str, ""):
        return _sets_in(cloud, zone, text)
    asked = [new_set(cloud, zone, each) for each in take(body, "rrsets", list, [])]
    there = {(each.name, each.type) for each in asked}
    return [each for each in _own_sets(cloud, zone) if (each.name, each.type) not in there] + asked


def _own_sets(cloud: Cloud, zone: Zone) -> list[Rrset]:
    """Made with the zone: its SOA and the vendor's name servers."""
    start = f"{NAME_SERVERS[0]} dns.hetzner.com. {zone.serial} {SOA_NUMBERS}"
    values = {"SOA": [start], "NS": NAME_SERVERS}
    return [
        Rrset(cloud.next_id(), zone.id, APEX, kind, None, [{"value": v, "comment": ""} for v in listed], {})
        for kind, listed in values.items()
    ]


def new_set(cloud: Cloud, zone: Zone, body: Any) -> Rrset:
    name, kind = checked_name(take(body, "name", str), zone), checked_type(take(body, "type", str))
    records, ttl = take_records(body, kind, zone), take_ttl(body)
    return Rrset(cloud.next_id(), zone.id, name, kind, ttl, records, take_labels(body))


def _sets_in(cloud: Cloud, zone: Zone, text: str) -> list[Rrset]:
    try:
        read = dns.zone.from_text(text, origin=f"{zone.name}.", relativize=False, check_origin=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise errors.invalid("zonefile", f"cannot be read: {error}") from None
    sets = []
    for owner, rdataset in read.iterate_rdatasets():
        relative = owner.relativize(dns.name.from_text(zone.name)).to_text().lower()
        records = [{"value": rdata.to_text(), "comment": rdata.rdcomment or ""} for rdata in rdataset]
        kind = checked_type(rdataset.rdtype.name)
        sets.append(Rrset(cloud.next_id(), zone.id, relative, kind, int(rdataset.ttl), records, {}))
    return sets


@effect("create_zone")
def _publish_all(cloud: Cloud, action: Action) -> None:
    zone = cloud.zones.get(dict(action.resources)["zone"])
    if zone is not None:
        publish_zone(cloud, zone)


def publish_zone(cloud: Cloud, zone: Zone) -> None:
    cloud.published.remove_zone(zone.name)
    for each in sets_of(cloud, zone):
        records = as_dns(each, zone)
        if records is not None:
            cloud.published.put(zone.name, records)


async def get_zone(call: Call) -> Answer:
    return Answer(200, {"zone": zone_wire(call.cloud, find_zone(call))})


async def update_zone(call: Call) -> Answer:
    zone = find_zone(call)
    if "labels" in call.body:
        zone.labels = take_labels(call.body)
    return Answer(200, {"zone": zone_wire(call.cloud, zone)})


async def delete_zone(call: Call) -> Answer:
    cloud, zone = call.cloud, find_zone(call)
    if zone.delete_protected:
        raise errors.protected("zone")
    cloud.bury("zones", zone_wire(cloud, zone))
    for each in sets_of(cloud, zone):
        del cloud.rrsets[each.id]
    del cloud.zones[zone.id]
    action = begin(cloud, "delete_zone", [("zone", zone.id)], {"name": zone.name})
    return acted(cloud, action)


@effect("delete_zone")
def _unpublish(cloud: Cloud, action: Action) -> None:
    cloud.published.remove_zone(action.arguments["name"])


async def change_ttl(call: Call) -> Answer:
    zone, ttl = primary_zone(call), take_ttl(call.body)
    if ttl is None:
        raise errors.invalid("ttl", "is missing")
    zone.ttl = ttl
    return _answer(call, zone, "change_zone_ttl")


async def change_protection(call: Call) -> Answer:
    zone = find_zone(call)
    if "delete" in call.body:
        zone.delete_protected = take(call.body, "delete", bool)
    return _answer(call, zone, "change_zone_protection")


async def import_zone_file(call: Call) -> Answer:
    cloud, zone = call.cloud, primary_zone(call)
    there = sets_of(cloud, zone)
    if any(each.change_protected for each in there):
        raise errors.protected("RRSet")
    sets = _sets_in(cloud, zone, take(call.body, "zonefile", str))
    for each in there:
        del cloud.rrsets[each.id]
    cloud.rrsets |= {each.id: each for each in sets}
    return _answer(call, zone, "import_zonefile")


effect("import_zonefile")(_publish_all)
effect("change_zone_ttl")(_publish_all)


async def export_zone_file(call: Call) -> Answer:
    zone = primary_zone(call)
    return Answer(200, {"zonefile": zone_file(zone, sets_of(call.cloud, zone))})


def _answer(call: Call, zone: Zone, command: str) -> Answer:
    return acted(call.cloud, begin(call.cloud, command, [("zone", zone.id)]))


async def actions_of_zone(call: Call) -> Answer:
    zone = find_zone(call)
    return page_of_actions(call, [a for a in call.cloud.actions.values() if ("zone", zone.id) in a.resources])


_path = "/zones/{id_or_name}"
ROUTES: list[ApiRoute] = [
    ("GET", "/zones", lister(ZONES)),
    ("POST", "/zones", create_zone),
    ("GET", _path, get_zone),
    ("PUT", _path, update_zone),
    ("DELETE", _path, delete_zone),
    ("GET", f"{_path}/zonefile", export_zone_file),
    ("GET", f"{_path}/actions", actions_of_zone),
    ("POST", f"{_path}/actions/change_ttl", change_ttl),
    ("POST", f"{_path}/actions/change_protection", change_protection),
    ("POST", f"{_path}/actions/import_zonefile", import_zone_file),
]
