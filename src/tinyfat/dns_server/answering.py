"""One DNS query and its answer, as an authoritative server gives it. Pure, but for the zones it is given to look at.

RFC 1034 section 4.3.2 (the algorithm), 2308 (negative answers), 4592 (wildcards), 6891 (EDNS). Recursion is not
offered; ANY and transfers are refused, so that nobody can use us to flood somebody else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

from tinyfat.domain.names import RecordSet, RecordType

HEADER_BYTES = 12
UDP_BYTES_PLAIN = 512  # RFC 1035 section 4.2.1
TCP_BYTES_MAX = 65535
UDP_BYTES_MAX = 1232  # passes everywhere unfragmented
STRING_BYTES_MAX = 255  # of one string of a TXT
ALIASES_MAX = 8
NEGATIVE_TTL_SECONDS = 60
REFRESH_SECONDS, RETRY_SECONDS, EXPIRE_SECONDS = 3600, 600, 1_209_600

_log = logging.getLogger(__name__)
_REFUSED_TYPES = {dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.IXFR}

Records = Mapping[tuple[str, RecordType], RecordSet]


@dataclass(frozen=True, slots=True)
class ServedZone:
    """A zone we answer for."""

    name: str  # lower case, without a dot at its end
    records: Callable[[], Records]  # as they are now; where it raises, the answer is SERVFAIL
    name_servers: tuple[str, ...] = ()  # for the zone's NS and SOA, where its records have none
    serial: int = 1


def answer(wire: bytes, zones: Sequence[ServedZone], over_udp: bool) -> bytes | None:
    """None: what came is no query, and nothing is said to it."""
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return _form_error(wire)
    if query.flags & dns.flags.QR:
        return None
    response = dns.message.make_response(query, our_payload=UDP_BYTES_MAX)
    try:
        _fill(query, response, zones)
    except Exception as error:  # a zone that cannot be read must not end the server
        _log.warning("A DNS query could not be answered: %r", error)
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
    return _to_wire(query, response, over_udp)


def _form_error(wire: bytes) -> bytes | None:
    """The header back with FORMERR, if there was one and it was a query's."""
    if len(wire) < HEADER_BYTES or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([wire[2] & 0x79 | 0x80, dns.rcode.FORMERR]) + bytes(HEADER_BYTES - 4)


def _to_wire(query: dns.message.Message, response: dns.message.Message, over_udp: bool) -> bytes:
    asked = query.payload if query.edns >= 0 else UDP_BYTES_PLAIN
    size = min(max(asked, UDP_BYTES_PLAIN), UDP_BYTES_MAX) if over_udp else TCP_BYTES_MAX
    try:
        return response.to_wire(max_size=size)
    except dns.exception.TooBig:
        short = dns.message.make_response(query, our_payload=UDP_BYTES_MAX)
        short.flags |= dns.flags.TC | (response.flags & dns.flags.AA)
        return short.to_wire(max_size=size)


def _fill(query: dns.message.Message, response: dns.message.Message, zones: Sequence[ServedZone]) -> None:
    if query.opcode() != dns.opcode.QUERY:
        return response.set_rcode(dns.rcode.NOTIMP)
    if len(query.question) != 1:
        return response.set_rcode(dns.rcode.FORMERR)
    if query.edns > 0:
        return response.set_rcode(dns.rcode.BADVERS)
    question = query.question[0]
    name = question.name.to_text(omit_final_dot=True).lower()
    zone = _zone_of(name, zones)
    wanted = question.rdclass == dns.rdataclass.IN and question.rdtype not in _REFUSED_TYPES
    if zone is None or not wanted:
        return response.set_rcode(dns.rcode.REFUSED)
    response.flags |= dns.flags.AA
    return _resolve(response, zone, name, dns.rdatatype.to_text(question.rdtype))


def _zone_of(name: str, zones: Sequence[ServedZone]) -> ServedZone | None:
    holding = [zone for zone in zones if name == zone.name or name.endswith(f".{zone.name}")]
    return max(holding, key=lambda zone: len(zone.name), default=None)


def _resolve(response: dns.message.Message, zone: ServedZone, name: str, kind: str) -> None:
    """Follow aliases as far as they stay in the zone."""
    records = zone.records()
    for _ in range(ALIASES_MAX):
        if servers := _delegated(zone, records, name):
            if not response.answer:
                response.flags &= ~dns.flags.AA
            response.authority.append(_rrset(servers.name, servers))
            return
        source = _source(zone, records, name)
        if source is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
            break
        found = _of_kind(zone, records, source, kind)
        if found is not None:
            response.answer.append(_rrset(name, found))
            return
        alias = records.get((source, RecordType.CNAME))
        if alias is None:
            break
        response.answer.append(_rrset(name, alias))
        name = alias.values[0].rstrip(".").lower()
        if _zone_of(name, [zone]) is None:
            return
    response.authority.append(_rrset(zone.name, _start_of_authority(zone, records)))


def _delegated(zone: ServedZone, records: Records, name: str) -> RecordSet | None:
    """The name servers that this part of the zone was given to, if it was."""
    while name != zone.name:
        if servers := records.get((name, RecordType.NS)):
            return servers
        name = name.partition(".")[2]
    return None


def _source(zone: ServedZone, records: Records, name: str) -> str | None:
    """The name whose records answer for it: itself, or the wildcard below its closest ancestor. None: NXDOMAIN."""
    names = {known for known, _ in records}
    if _exists(zone, names, name):
        return name
    while name != zone.name:
        name = name.partition(".")[2]
        if f"*.{name}" in names:
            return f"*.{name}"
        if _exists(zone, names, name):
            return None
    return None


def _exists(zone: ServedZone, names: set[str], name: str) -> bool:
    """A name between others exists too, without records (RFC 4592 section 2.2.2)."""
    return name == zone.name or name in names or any(known.endswith(f".{name}") for known in names)


def _of_kind(zone: ServedZone, records: Records, name: str, kind: str) -> RecordSet | None:
    if kind not in RecordType.__members__:
        return None
    found = records.get((name, RecordType(kind)))
    if found is not None or name != zone.name:
        return found
    if kind == RecordType.SOA:
        return _start_of_authority(zone, records)
    if kind == RecordType.NS and zone.name_servers:
        return RecordSet(name, RecordType.NS, tuple(f"{each.rstrip('.')}." for each in zone.name_servers))
    return None


def _start_of_authority(zone: ServedZone, records: Records) -> RecordSet:
    own = records.get((zone.name, RecordType.SOA))
    if own is not None:
        return own
    first = (zone.name_servers or (f"ns.{zone.name}",))[0].rstrip(".")
    numbers = f"{zone.serial} {REFRESH_SECONDS} {RETRY_SECONDS} {EXPIRE_SECONDS} {NEGATIVE_TTL_SECONDS}"
    value = f"{first}. hostmaster.{zone.name}. {numbers}"
    return RecordSet(zone.name, RecordType.SOA, (value,), NEGATIVE_TTL_SECONDS)


def _rrset(owner: str, records: RecordSet) -> dns.rrset.RRset:
    rdatas = [_rdata(records.kind, value) for value in records.values]
    return dns.rrset.from_rdata_list(dns.name.from_text(owner), records.ttl, rdatas)


def _rdata(kind: RecordType, value: str) -> dns.rdata.Rdata:
    if kind is not RecordType.TXT:
        return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), value)
    data = value.encode("utf-8", "surrogateescape")
    strings = [data[n : n + STRING_BYTES_MAX] for n in range(0, len(data), STRING_BYTES_MAX)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
