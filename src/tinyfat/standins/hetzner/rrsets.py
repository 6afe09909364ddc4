"""The records of a zone, in sets of one name and type. What the API says of them changes at once; what the name servers
answer, when the action has ended and some seconds have passed."""

from __future__ import annotations

from tinyfat.domain.names import RecordType
from tinyfat.standins.hetzner import errors
from tinyfat.standins.hetzner.actions import begin, effect
from tinyfat.standins.hetzner.calls import Answer, ApiRoute, Call, acted, page, take, take_labels
from tinyfat.standins.hetzner.cloud import Cloud
from tinyfat.standins.hetzner.resources import Action, Rrset, Zone
from tinyfat.standins.hetzner.views import action_wire, rrset_wire
from tinyfat.standins.hetzner.zone_values import (
    as_dns,
    checked_name,
    checked_type,
    full_name,
    take_records,
    take_ttl,
)
from tinyfat.standins.hetzner.zones import new_set, primary_zone, sets_of

PER_PAGE_MAX = 100


def _found(call: Call, zone: Zone) -> Rrset | None:
    name, kind = call.path["rr_name"], call.path["rr_type"]
    return next((each for each in sets_of(call.cloud, zone) if (each.name, each.type) == (name, kind)), None)


def _find(call: Call, zone: Zone) -> Rrset:
    found = _found(call, zone)
    if found is None:
        raise errors.not_found("rrset", f"{call.path['rr_name']}/{call.path['rr_type']}")
    return found


def _changeable(call: Call, zone: Zone) -> Rrset:
    rrset = _find(call, zone)
    if rrset.change_protected:
        raise errors.protected("RRSet")
    return rrset


async def list_rrsets(call: Call) -> Answer:
    zone = primary_zone(call)
    return page(call, "rrsets", [rrset_wire(call.cloud, each) for each in sets_of(call.cloud, zone)], PER_PAGE_MAX)


async def create_rrset(call: Call) -> Answer:
    cloud, zone = call.cloud, primary_zone(call)
    rrset = new_set(cloud, zone, call.body)
    for other in sets_of(cloud, zone):
        if other.name == rrset.name and other.type == rrset.type:
            raise errors.taken("rrset", "name")
        _no_alias_beside(rrset, other)
    cloud.rrsets[rrset.id] = rrset
    action = _begin(cloud, "create_rrset", zone, rrset)
    return Answer(201, {"rrset": rrset_wire(cloud, rrset), "action": action_wire(cloud, action)})


def _no_alias_beside(rrset: Rrset, other: Rrset) -> None:
    """RFC 1034 section 3.6.2."""
    if rrset.name == other.name and "CNAME" in (rrset.type, other.type):
        raise errors.invalid("type", "a CNAME cannot stand beside other records of its name")


def _begin(cloud: Cloud, command: str, zone: Zone, rrset: Rrset) -> Action:
    zone.serial += 1
    return begin(cloud, command, [("zone", zone.id)], {"name": rrset.name, "type": rrset.type})


def _publish(cloud: Cloud, action: Action) -> None:
    """What the set is now, whatever it was when this action began."""
    zone = cloud.zones.get(dict(action.resources)["zone"])
    name, kind = action.arguments["name"], action.arguments["type"]
    if zone is None or kind not in RecordType.__members__:
        return
    now = next((each for each in sets_of(cloud, zone) if (each.name, each.type) == (name, kind)), None)
    records = None if now is None else as_dns(now, zone)
    if records is None:
        cloud.published.remove(zone.name, (full_name(name, zone), RecordType(kind)))
    else:
        cloud.published.put(zone.name, records)


for _command in (
    "create_rrset",
    "delete_rrset",
    "set_rrset_records",
    "add_rrset_records",
    "remove_rrset_records",
    "change_rrset_ttl",
):
    effect(_command)(_publish)


async def get_rrset(call: Call) -> Answer:
    return Answer(200, {"rrset": rrset_wire(call.cloud, _find(call, primary_zone(call)))})


async def update_rrset(call: Call) -> Answer:
    rrset = _find(call, primary_zone(call))
    if "labels" in call.body:
        rrset.labels = take_labels(call.body)
    return Answer(200, {"rrset": rrset_wire(call.cloud, rrset)})


async def delete_rrset(call: Call) -> Answer:
    cloud, zone = call.cloud, primary_zone(call)
    rrset = _changeable(call, zone)
    del cloud.rrsets[rrset.id]
    return acted(call.cloud, _begin(cloud, "delete_rrset", zone, rrset))


async def set_records(call: Call) -> Answer:
    zone = primary_zone(call)
    rrset = _changeable(call, zone)
    rrset.records = take_records(call.body, rrset.type, zone)
    return acted(call.cloud, _begin(call.cloud, "set_rrset_records", zone, rrset))


async def add_records(call: Call) -> Answer:
    """Makes the set where there is none."""
    cloud, zone = call.cloud, primary_zone(call)
    kind, ttl = checked_type(call.path["rr_type"]), take_ttl(call.body)
    records = take_records(call.body, kind, zone)
    rrset = _found(call, zone)
    if rrset is None:
        rrset = Rrset(cloud.next_id(), zone.id, checked_name(call.path["rr_name"], zone), kind, ttl, [], {})
        for other in sets_of(cloud, zone):
            _no_alias_beside(rrset, other)
        cloud.rrsets[rrset.id] = rrset
    elif rrset.change_protected:
        raise errors.protected("RRSet")
    there = {each["value"] for each in rrset.records}
    if any(each["value"] in there for each in records):
        raise errors.invalid("records", "must be distinct, and one is there already")
    rrset.records = [*rrset.records, *records]
    return acted(call.cloud, _begin(cloud, "add_rrset_records", zone, rrset))


async def remove_records(call: Call) -> Answer:
    """Without records, the set is gone."""
    cloud, zone = call.cloud, primary_zone(call)
    rrset = _changeable(call, zone)
    unwanted = {take(each, "value", str) for each in take(call.body, "records", list)}
    if not unwanted <= {each["value"] for each in rrset.records}:
        raise errors.not_found("record", ", ".join(sorted(unwanted)))
    rrset.records = [each for each in rrset.records if each["value"] not in unwanted]
    if not rrset.records:
        del cloud.rrsets[rrset.id]
    return acted(call.cloud, _begin(cloud, "remove_rrset_records", zone, rrset))


async def update_records(call: Call) -> Answer:
    """Comments alone."""
    zone = primary_zone(call)
    rrset = _changeable(call, zone)
    comments = {take(each, "value", str): take(each, "comment", str) for each in take(call.body, "records", list)}
    if not set(comments) <= {each["value"] for each in rrset.records}:
        raise errors.not_found("record", ", ".join(sorted(comments)))
    rrset.records = [{**each, "comment": comments.get(each["value"], each["comment"])} for each in rrset.records]
    action = _begin(call.cloud, "update_rrset_records", zone, rrset)
    return Answer(200, {"action": action_wire(call.cloud, action)})


async def change_ttl(call: Call) -> Answer:
    zone = primary_zone(call)
    rrset = _changeable(call, zone)
    rrset.ttl = take_ttl(call.body)
    return acted(call.cloud, _begin(call.cloud, "change_rrset_ttl", zone, rrset))


async def change_protection(call: Call) -> Answer:
    zone = primary_zone(call)
    rrset = _find(call, zone)
    rrset.change_protected = take(call.body, "change", bool)
    return acted(call.cloud, _begin(call.cloud, "change_rrset_protection", zone, rrset))


_sets = "/zones/{id_or_name}/rrsets"
_one = f"{_sets}/{{rr_name}}/{{rr_type}}"
ROUTES: list[ApiRoute] = [
    ("GET", _sets, list_rrsets),
    ("POST", _sets, create_rrset),
    ("GET", _one, get_rrset),
    ("PUT", _one, update_rrset),
    ("DELETE", _one, delete_rrset),
    ("POST", f"{_one}/actions/set_records", set_records),
    ("POST", f"{_one}/actions/add_records", add_records),
    ("POST", f"{_one}/actions/remove_records", remove_records),
    ("POST", f"{_one}/actions/update_records", update_records),
    ("POST", f"{_one}/actions/change_ttl", change_ttl),
    ("POST", f"{_one}/actions/change_protection", change_protection),
]
