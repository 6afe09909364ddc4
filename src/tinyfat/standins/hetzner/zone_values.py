"""Records as the API has them (names within the zone, values as in a zone file) and as the DNS has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from tinyfat.domain.names import RecordSet, RecordType
from tinyfat.standins.hetzner import errors
from tinyfat.standins.hetzner.calls import take
from tinyfat.standins.hetzner.resources import Rrset, Zone
from tinyfat.standins.published import text_of

_COMMON = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")
TYPES = frozenset([*_COMMON, "CAA", "DS", "HINFO", "HTTPS", "RP", "SVCB", "TLSA"])
TTL_SECONDS_MIN, TTL_SECONDS_MAX = 60, 2_147_483_647
RECORDS_MAX = 100
APEX = "@"
_name = re.compile(r"@|\*|(\*\.)?[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_quoted_strings = re.compile(r'"(?:[^"\\]|\\.)*"(?:\s+"(?:[^"\\]|\\.)*")*', re.DOTALL)


def checked_name(name: str, zone: Zone) -> str:
    if name == zone.name or name.endswith((".", f".{zone.name}")) or not _name.fullmatch(name):
        raise errors.invalid("name", 'must be within the zone, in lower case and without a dot at its end, or "@"')
    return name


def checked_type(kind: str) -> str:
    if kind not in TYPES:
        raise errors.invalid("type", "is not known")
    return kind


def take_ttl(body: Any) -> int | None:
    ttl = body.get("ttl")
    if ttl is None:
        return None
    if not isinstance(ttl, int) or not TTL_SECONDS_MIN <= ttl <= TTL_SECONDS_MAX:
        raise errors.invalid("ttl", f"must be {TTL_SECONDS_MIN} to {TTL_SECONDS_MAX} seconds")
    return ttl


def take_records(body: Any, kind: str, zone: Zone) -> list[dict[str, str]]:
    records = take(body, "records", list)
    values = [take(each, "value", str) if isinstance(each, dict) else "" for each in records]
    if not 1 <= len(records) <= RECORDS_MAX or len(set(values)) != len(values):
        raise errors.invalid("records", f"must be 1 to {RECORDS_MAX} with distinct values")
    for value in values:
        _check(value, kind, zone)
    return [{"value": each["value"], "comment": str(each.get("comment") or "")} for each in records]


def _check(value: str, kind: str, zone: Zone) -> None:
    if kind == "TXT" and not _quoted_strings.fullmatch(value):
        raise errors.invalid("records.value", "must be strings in double quotes, of 255 bytes at most each")
    try:
        _rdata(value, kind, zone)
    except (dns.exception.DNSException, ValueError) as error:
        raise errors.invalid("records.value", f"is no value for {kind}: {error}") from None


def _rdata(value: str, kind: str, zone: Zone) -> dns.rdata.Rdata:
    origin = dns.name.from_text(zone.name)
    rdtype = dns.rdatatype.from_text(kind)
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, value, origin=origin, relativize=False)


def full_name(name: str, zone: Zone) -> str:
    return zone.name if name == APEX else f"{name}.{zone.name}"


def as_dns(rrset: Rrset, zone: Zone) -> RecordSet | None:
    """None for types that our name server does not know."""
    if rrset.type not in RecordType.__members__:
        return None
    rdatas = [_rdata(each["value"], rrset.type, zone) for each in rrset.records]
    values = tuple(sorted(text_of(rdata) for rdata in rdatas))
    return RecordSet(full_name(rrset.name, zone), RecordType(rrset.type), values, rrset.ttl or zone.ttl)


def zone_file(zone: Zone, rrsets: Iterable[Rrset]) -> str:
    """RFC 1035 section 5, names within the zone."""
    lines = [f"$ORIGIN\t{zone.name}.", f"$TTL\t{zone.ttl}", ""]
    for each in rrsets:
        for record in each.records:
            comment = f" ; {record['comment']}" if record["comment"] else ""
            ttl = "" if each.ttl is None else f"{each.ttl}\t"
            lines.append(f"{each.name}\t{ttl}IN\t{each.type}\t{record['value']}{comment}")
    return "\n".join([*lines, ""])
