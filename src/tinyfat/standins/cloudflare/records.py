"""Zones and their records as Cloudflare keeps them: one entry a value, each with an id."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.standins.published import Published, text_of

TYPES = frozenset(("A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT"))
PROXIABLE = frozenset(("A", "AAAA", "CNAME"))
TTL_AUTOMATIC, TTL_AUTOMATIC_SECONDS = 1, 300
TTL_SECONDS_MIN, TTL_SECONDS_MAX = 60, 86400
PRIORITY_MAX = 65535
_name = re.compile(r"(\*\.|\*$)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.|$))*")


class RecordError(Exception):
    """A refusal: an HTTP status, Cloudflare's code, and what it says; `chain`: the codes behind it."""

    def __init__(self, status: int, code: int, message: str, chain: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.chain = status, code, message, chain


def invalid(code: int, message: str) -> RecordError:
    return RecordError(400, 1004, "DNS Validation Error", ((code, message),))


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    zone: str  # its id
    name: str
    type: str
    content: str
    ttl: int  # seconds; 1: automatic
    proxied: bool
    priority: int | None
    comment: str
    created: float
    modified: float


@dataclass(slots=True)
class Zone:
    id: str
    name: str
    created: float
    records: dict[str, Record] = field(default_factory=dict)


def new_id() -> str:
    return secrets.token_hex(16)


def read(zone: Zone, body: Mapping[str, Any], old: Record | None, now: float) -> Record:
    """A whole record. `old`: what stays of it where the body says nothing. Raises RecordError."""
    kind = body.get("type", old.type if old else None)
    if kind not in TYPES:
        raise invalid(9004, "DNS record type is invalid")
    name = _full_name(zone, body.get("name", old.name if old else None))
    proxied = body.get("proxied", old.proxied if old else False) is True
    if proxied and kind not in PROXIABLE:
        raise invalid(9041, "Invalid proxied mode. Record cannot be proxied")
    ttl = _ttl(body.get("ttl", old.ttl if old else TTL_AUTOMATIC))
    content = body.get("content", old.content if old else None)
    priority = _priority(kind, body.get("priority", old.priority if old else None))
    record = Record(
        id=old.id if old else new_id(),
        zone=zone.id,
        name=name,
        type=kind,
        content=content if isinstance(content, str) else "",
        ttl=TTL_AUTOMATIC if proxied else ttl,
        proxied=proxied,
        priority=priority,
        comment=str(body.get("comment", old.comment if old else "") or ""),
        created=old.created if old else now,
        modified=now,
    )
    _rdata(record)
    _alone(zone, record)
    return record


def _full_name(zone: Zone, name: object) -> str:
    text = name.lower().rstrip(".") if isinstance(name, str) else ""
    if text == "@" or text == zone.name:
        return zone.name
    if not text or not _name.fullmatch(text):
        raise invalid(9000, "DNS name is invalid.")
    return text if text.endswith(f".{zone.name}") else f"{text}.{zone.name}"


def _ttl(ttl: object) -> int:
    if ttl == TTL_AUTOMATIC or (isinstance(ttl, int) and TTL_SECONDS_MIN <= ttl <= TTL_SECONDS_MAX):
        assert isinstance(ttl, int)
        return ttl
    raise invalid(9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.")


def _priority(kind: str, priority: object) -> int | None:
    if kind != "MX":
        return None
    if not isinstance(priority, int) or not 0 <= priority <= PRIORITY_MAX:
        raise invalid(9100, "priority is a required data field.")
    return priority


def _rdata(record: Record) -> dns.rdata.Rdata:
    """Raises RecordError. Names here are whole, with a dot at their end or without."""
    text = record.content if record.priority is None else f"{record.priority} {record.content}"
    if record.type == "TXT" and not record.content.startswith('"'):
        text = f'"{record.content}"'
    try:
        rdtype = dns.rdatatype.from_text(record.type)
        return dns.rdata.from_text(dns.rdataclass.IN, rdtype, text, origin=dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError):
        article = "a valid IPv4 address" if record.type == "A" else "valid"
        raise invalid(9005, f"Content for {record.type} record must be {article}.") from None


def _alone(zone: Zone, record: Record) -> None:
    """Raises RecordError where another record of the zone forbids this one."""
    for other in zone.records.values():
        if other.id == record.id or other.name != record.name:
            continue
        if replace(other, id=record.id, created=record.created, modified=record.modified) == record:
            raise RecordError(400, 81058, "An identical record already exists.")
        if (other.type, other.content, other.priority) == (record.type, record.content, record.priority):
            raise RecordError(400, 81057, "The record already exists.")
        if record.type == "CNAME" and other.type in PROXIABLE:
            raise RecordError(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        if other.type == "CNAME" and record.type in PROXIABLE:
            raise RecordError(400, 81054, "A CNAME record with that host already exists.")


def publish(published: Published, zone: Zone, name: str, kind: str) -> None:
    """What the name servers are to say of this name and type now."""
    if kind not in RecordType.__members__:
        return None
    same = [each for each in zone.records.values() if each.name == name and each.type == kind]
    if not same:
        return published.remove(zone.name, (name, RecordType(kind)))
    values = tuple(sorted({text_of(_rdata(each)) for each in same}))
    ttl = min(TTL_AUTOMATIC_SECONDS if each.ttl == TTL_AUTOMATIC else each.ttl for each in same)
    return published.put(zone.name, RecordSet(name, RecordType(kind), values, ttl))


def record_wire(record: Record) -> dict[str, Any]:
    wire = {
        "id": record.id,
        "name": record.name,
        "type": record.type,
        "content": record.content,
        "proxiable": record.type in PROXIABLE,
        "proxied": record.proxied,
        "ttl": record.ttl,
        "settings": {},
        "meta": {},
        "comment": record.comment or None,
        "tags": [],
        "created_on": _time(record.created),
        "modified_on": _time(record.modified),
    }
    return wire if record.priority is None else {**wire, "priority": record.priority}


def zone_wire(zone: Zone) -> dict[str, Any]:
    return {
        "id": zone.id,
        "name": zone.name,
        "status": "active",
        "paused": False,
        "type": "full",
        "development_mode": 0,
        "name_servers": ["ada.ns.cloudflare.com", "bob.ns.cloudflare.com"],
        "original_name_servers": None,
        "original_registrar": None,
        "original_dnshost": None,
        "created_on": _time(zone.created),
        "modified_on": _time(zone.created),
        "activated_on": _time(zone.created),
        "meta": {"step": 2, "custom_certificate_quota": 0, "page_rule_quota": 3},
        "owner": {"id": None, "type": "user", "email": None},
        "account": {"id": "0" * 32, "name": "stand-in"},
        "permissions": ["#dns_records:edit", "#dns_records:read", "#zone:read"],
        "plan": {"id": "0feeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "name": "Free Website"},
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
